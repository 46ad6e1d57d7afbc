"""Files that say when they are damaged: what is kept between runs is never trusted blindly."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from kvw.files import write_bytes

logger = logging.getLogger(__name__)

FIRST_WORDS = b"kvw checked 1 "


def write_checked(path: Path, content: bytes) -> None:
    """Write a file that begins with a line that holds the SHA-256 of its name and content.

    Raises:
        UserError: The place cannot be written; an older file there is untouched.
    """
    write_bytes(path, _first_line(path, content) + content)


def read_checked(path: Path) -> bytes | None:
    """What :func:`write_checked` was given.

    None if there is no such file, or if a byte of it is not what it was; then a warning says so.
    """
    try:
        found = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        tell_damaged(path, str(error))
        return None
    first, _, content = found.partition(b"\n")
    if first + b"\n" != _first_line(path, content):
        tell_damaged(path, "another SHA-256")
        return None
    return content


def tell_damaged(path: Path, found: str) -> None:
    """Warn that a file that was kept between runs is not used, and that its content is worked out again."""
    logger.warning("%s is damaged (%s): what it held is worked out again", path, found)


def _first_line(path: Path, content: bytes) -> bytes:
    # With the name, because a file that is under the name of another one is as wrong as a damaged one.
    digest = hashlib.sha256(path.name.encode("utf-8", errors="surrogateescape") + b"\0" + content).hexdigest()
    return FIRST_WORDS + digest.encode("ascii") + b"\n"
