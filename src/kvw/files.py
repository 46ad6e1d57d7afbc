"""Writing files so that a crash, a full disk or Ctrl-C leaves either the old state or the new one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvw.errors import Unwritable

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
"""Modes of what may hold forget data, answers or names: only its owner can read it."""
PARTIAL = ".partial"
LONGEST_NAME = 255
"""Bytes that file systems allow for a name."""
RANDOM = 8
"""Characters that :func:`tempfile.mkstemp` puts into a name."""


def write_bytes(path: Path, content: bytes, *, public: bool = False) -> None:
    """Write a file through a temporary sibling, fsync and rename.

    Args:
        path: The file.
        content: What it is to hold.
        public: Whether others may read it, as far as the umask allows; else its mode is 0600.

    Raises:
        Unwritable: The disk is full or the file cannot be written; what was at ``path`` is as it was before.
    """
    with new_file(path, public=public) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str, *, public: bool = False) -> None:
    """Write UTF-8 text like :func:`write_bytes`.

    Lone surrogates, which UTF-8 cannot hold, are written as ``\\udc80``: inside JSON that is their own escape.
    """
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"), public=public)


@contextmanager
def new_file(path: Path, *, public: bool = False, once: bool = False) -> Iterator[Path]:
    """Write a temporary sibling that takes the place of ``path`` when the block ends well.

    Siblings that a killed process has left are removed, see :func:`remove_left`.

    Args:
        path: The file.
        public: Whether others may read it, as far as the umask allows; else its mode is 0600.
        once: Whether a file that another process puts at ``path`` meanwhile stays.

    Yields:
        The file to write; if the block raises, it is removed and what was at ``path`` stays.

    Raises:
        Unwritable: The disk is full or the file cannot be written.
    """
    with explained(path):
        make_folders(path.parent, private=not public)
        remove_left(path)
        temporary, handle = _locked_file(path.parent, _prefix(path))
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~umask() if public else PRIVATE_FILE)
            if once:
                with suppress(FileExistsError):
                    os.link(temporary, path)
                temporary.unlink()
            else:
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


def hidden_name(name: str, ending: str, *, room: int = 0) -> str:
    """The name of a hidden sibling; shortened, and told apart by a digest, where it would be too long.

    Args:
        name: Name of the file or folder.
        ending: What comes after it.
        room: Bytes that must be free for what is put behind.
    """
    return "." + fitting_name(name, ending, room=room + 1)


def fitting_name(name: str, ending: str, *, room: int = 0) -> str:
    """A name with an ending; shortened, and told apart by a digest, where it would be too long."""
    given = os.fsencode(name)
    allowed = LONGEST_NAME - room - len(os.fsencode(ending))
    if len(given) <= allowed:
        return name + ending
    mark = "-" + hashlib.sha256(given).hexdigest()[:12]
    return given[: allowed - len(mark)].decode("utf-8", errors="ignore") + mark + ending


def make_folders(folder: Path, *, private: bool) -> list[Path]:
    """Make a folder and those above it; returns those that were not there, the outermost first."""
    missing: list[Path] = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.insert(0, path)
    for path in missing:
        path.mkdir(PRIVATE_FOLDER if private else 0o777, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    return missing


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into messages for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            free = shutil.disk_usage(existing_parent(path)).free
            raise Unwritable(
                f"The disk is full: {path} could not be written.",
                found=f"{free / 1e9:.1f} GB free",
                do="free space or name another place; what was there before is untouched",
            ) from error
        raise Unwritable(
            f"{path} could not be written.", found=str(error), do="name another place that you may write to"
        ) from error


def existing_parent(path: Path) -> Path:
    """The nearest directory on the way to ``path`` that exists."""
    path = path.absolute()
    while not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() raises where a name is too long
        path = path.parent
    return path


def sync_directory(directory: Path) -> None:
    """Wait until a directory and all that it holds are on the disk."""
    for path in [*directory.rglob("*"), directory]:
        if not path.is_symlink():
            sync_entry(path)


def sync_entry(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def take_lock(handle: int) -> bool:
    """Lock an open file for this process; False if another one holds it. It ends with the process."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def umask() -> int:
    """What the user takes away from the modes of new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _locked_file(folder: Path, prefix: str) -> tuple[Path, int]:
    """A new file under a lock of this process."""
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=PARTIAL, dir=folder)
        if take_lock(handle) and os.fstat(handle).st_nlink:
            return Path(name), handle
        os.close(handle)  # another process took it for left behind, before it was locked


def _prefix(path: Path) -> str:
    return hidden_name(path.name, ".", room=RANDOM + len(PARTIAL))


def remove_left(path: Path) -> None:
    """Remove what killed processes have left of :func:`new_file`; a lock tells it from what is being written."""
    prefix = _prefix(path)
    for entry in os.scandir(path.parent):
        if entry.name.startswith(prefix) and entry.name.endswith(PARTIAL) and entry.is_file(follow_symlinks=False):
            with suppress(OSError):
                handle = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if take_lock(handle):
                        Path(entry.path).unlink()
                finally:
                    os.close(handle)
