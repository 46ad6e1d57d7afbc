"""Digests of data that nobody can guess: keyed with a secret that stays on this machine."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from pathlib import Path

from kvw.cache import cache_directory
from kvw.errors import UserError
from kvw.files import new_file, remove_left

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


def secret_name() -> str:
    """Which secret this machine has, without saying the secret: 64 hexadecimal digits, equal where the secret is."""
    return salted("the name of the secret")


def _secret() -> bytes:
    """The secret of this machine; made at the first call."""
    path = cache_directory() / SALT
    try:
        if not path.exists():
            from kvw.processes import current  # with torch, which who only verifies does without

            if not current().is_first:
                return secrets.token_bytes()  # of several processes the first writes, and its digests are those kept
            _make(path)
        elif path.stat().st_nlink > 1:
            remove_left(path)  # the process that made it was killed before it took the other name away
        secret, _, check = path.read_text("ascii").strip().partition(" ")
    except (OSError, UserError) as error:
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
    # Never in the place of the secret of a process that was faster.
    with new_file(path, once=True) as temporary:
        temporary.write_text(f"{secret} {hashlib.sha256(secret.encode()).hexdigest()}\n", "ascii")
