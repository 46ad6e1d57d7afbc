"""Digests of data that nobody can guess: keyed with a secret that stays on this machine."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from kvw.cache import cache_directory
from kvw.errors import UserError
from kvw.files import make_folders
from kvw.processes import current

logger = logging.getLogger(__name__)

SALT = "salt"
"""The file of the secret, in the cache directory."""


def salted(digest: str) -> str:
    """HMAC-SHA-256 of a digest, keyed with the secret of this machine: 64 hexadecimal digits.

    A plain digest of few examples can be guessed by trying questions and answers. Whoever has the secret and the data
    can still show that a digest is theirs, and the same data have the same digest in all runs on one machine.

    Raises:
        UserError: The file of the secret is damaged.
    """
    return hmac.new(_secret(), digest.encode(), hashlib.sha256).hexdigest()


def _secret() -> bytes:
    """The secret of this machine; made at the first call."""
    path = cache_directory() / SALT
    try:
        if not path.exists():
            if not current().is_first:
                return secrets.token_bytes()  # of several processes the first writes, and its digests are those kept
            _make(path)
        secret, _, check = path.read_text("ascii").strip().partition(" ")
    except OSError as error:
        logger.warning("the secret for digests of data cannot be kept, so nobody can check them later: %s", error)
        return secrets.token_bytes()
    except ValueError:
        secret, check = "", "damaged"
    if hashlib.sha256(secret.encode()).hexdigest() != check:
        raise UserError(
            f"{path} is damaged: it holds the secret with which digests of data are keyed.",
            do="put a copy back, or delete it; then a new one is made, and digests of earlier runs cannot be checked",
        )
    return secret.encode()


def _make(path: Path) -> None:
    secret = secrets.token_hex()
    make_folders(path.parent, private=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{secret} {hashlib.sha256(secret.encode()).hexdigest()}\n")
            file.flush()
            os.fsync(handle)
        with suppress(FileExistsError):
            os.link(name, path)  # unlike renaming, it never replaces the secret of a process that was faster
    finally:
        Path(name).unlink()
