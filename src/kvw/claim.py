"""A place for a directory that only one process may write: locked, filled beside it, and put there in one step."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvw.checked import read_checked, write_checked
from kvw.errors import UserError
from kvw.files import (
    PRIVATE_FOLDER,
    explained,
    file_digest,
    fitting_name,
    hidden_name,
    make_folders,
    sync_directory,
    sync_entry,
    take_lock,
    umask,
)
from kvw.mark import asked_for, write_mark
from kvw.output import busy, check_output_directory

LOCK = "lock"
CONTENT = "content"
REPLACED = "replaced"
SECURED = "secured.json"
RESERVE = "reserve"
NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


class Claim:
    """A directory that this process may write, and what it holds so far.

    Attributes:
        path: The directory, links resolved.
        root: The hidden sibling that holds the lock and all beginnings.
        folder: The directory to fill, in ``root``.
        nested: Whether the directory is part of one that is being written, whose fate it shares.
        kept: Where the work of an earlier run was put that was killed after its passes; None if there is none.
    """

    def __init__(self, path: Path, force: bool, keep: Iterable[Path]) -> None:
        self.path, self.root = path, partial_path(path)
        self.folder = self.root / CONTENT
        self.nested = any(parent.name == CONTENT and (parent.parent / LOCK).is_file() for parent in path.parents)
        self.kept: Path | None = None
        self._force, self._keep = force, tuple(keep)
        self._complete = False
        self._removed = True

    def also_keep(self, paths: Iterable[Path]) -> None:
        """Check again, with more files that the run reads.

        Raises:
            UserError: The directory is or holds one of them.
        """
        self._keep += tuple(paths)
        self.check()

    def check(self) -> None:
        """See :func:`kvw.output.check_output_directory`."""
        check_output_directory(self.path, force=self._force, keep=self._keep)

    def reserve(self, size: int) -> None:
        """Take room on the disk now, for what is to be written at the end; :meth:`empty` gives it back.

        Raises:
            UserError: The disk has less room.
        """
        with explained(self.path), (self.root / RESERVE).open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)

    def empty(self) -> Path:
        """Make the directory to fill, with nothing in it; returns it."""
        discard(self.folder)
        (self.root / SECURED).unlink(missing_ok=True)
        (self.root / RESERVE).unlink(missing_ok=True)
        self.folder.mkdir(PRIVATE_FOLDER)
        return self.folder

    def secure(self) -> None:
        """What lies in ``folder`` now is kept from here on, also if this process is killed; see :meth:`keep`."""
        sync_directory(self.folder)
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        digests = {path.relative_to(self.folder).as_posix(): file_digest(path) for path in files}
        write_checked(self.root / SECURED, json.dumps(digests).encode("utf-8"))

    def keep(self, kind: str) -> Path | None:
        """Put what was secured beside ``path``, under a name of its own and marked as ``kind``.

        All that is there is kept if nothing was secured yet, or if the directory was complete and only could not take
        its place.

        Returns:
            Where it is now; None if there is nothing.
        """
        if not (self.folder.is_dir() and any(self.folder.iterdir())):
            return None
        digests = None if self._complete else self._secured()
        if digests is not None:
            for file in self.folder.rglob("*"):
                if not file.is_dir() and file.relative_to(self.folder).as_posix() not in digests:
                    file.unlink()
            for folder in [path for path in self.folder.iterdir() if path.is_dir()]:
                if not any(path.is_file() for path in folder.rglob("*")):
                    shutil.rmtree(folder)
        with suppress(UserError):  # a full disk has no room for the mark, and needs none for what is there
            write_mark(self.folder, kind)
        (self.root / SECURED).unlink(missing_ok=True)
        number, target = 1, _beside(self.path, ".kept")
        while target.exists() or target.is_symlink():
            number, target = number + 1, _beside(self.path, f".kept-{number + 1}")
        self.folder.rename(target)
        return target

    def publish(self, kind: str, *, public: bool = False) -> None:
        """Mark the directory, bring it to the disk, and let it take its place.

        Raises:
            UserError: Somebody else has put something there in the meantime.
        """
        write_mark(self.folder, kind, public=public, request=asked_for(self.path))
        self.folder.chmod(0o777 & ~umask() if public else PRIVATE_FOLDER)
        sync_directory(self.folder)
        self._complete = True
        self.check()
        replace_directory(self.folder, self.path, self.root / REPLACED)
        sync_entry(self.path.parent)

    def leave(self) -> None:
        """Do not remove the beginnings when the block ends, so that a later run goes on with them."""
        self._removed = False

    def recover(self) -> None:
        """Put right what a killed run has left.

        Raises:
            UserError: ``path`` cannot be written; of what lies in ``root`` only waste was removed.
        """
        replaced = self.root / REPLACED
        if replaced.exists() and not self.path.exists():
            replaced.rename(self.path)  # killed between two renames, where directories cannot be exchanged
        discard(replaced)
        (self.root / RESERVE).unlink(missing_ok=True)
        if self._secured():
            self.kept = self.keep("run")
        (self.root / SECURED).unlink(missing_ok=True)
        self._removed = not self.folder.exists()
        try:
            self.check()
        except UserError as error:
            if self._removed:
                raise
            found = f"{error.found}; {self.root} has the beginnings of a run that was interrupted".removeprefix("; ")
            raise UserError(error.what, found=found, do=error.do) from error
        self._removed = True

    def _secured(self) -> dict[str, str] | None:
        """Digests of what was secured, if all of it is still there."""
        content = read_checked(self.root / SECURED)
        if content is None:
            return None
        digests: dict[str, str] = json.loads(content)
        places = {name: self.folder / name for name in digests}
        same = all(places[name].is_file() and file_digest(places[name]) == found for name, found in digests.items())
        return digests if same else None

    def end(self) -> None:
        """Remove what is not to be left."""
        if self._removed:
            # The lock goes last, because whoever finds none may start to write here.
            for entry in self.root.iterdir():
                if entry.name != LOCK:
                    discard(entry)
            (self.root / LOCK).unlink()
            with suppress(OSError):  # another process may have begun there
                self.root.rmdir()


@contextmanager
def claimed(path: Path, *, force: bool = False, keep: Iterable[Path] = ()) -> Iterator[Claim]:
    """Take a place for a directory, for as long as the block runs; what is left of the work is removed at its end.

    Args:
        path: The directory to write.
        force: Whether what it holds may be replaced, if kvw wrote it.
        keep: What the run reads.

    Raises:
        UserError: Another process is writing ``path``, or it cannot be written: see
            :func:`kvw.output.check_output_directory`. ``path`` is as it was.
    """
    with explained(path):
        claim = Claim(path.resolve(), force, keep)
        handle, made = _lock(claim.root, claim.path)
        try:
            try:
                claim.recover()
                yield claim
            finally:
                claim.end()
        finally:
            os.close(handle)
            for folder in reversed(made):
                with suppress(OSError):  # it holds what was written
                    folder.rmdir()


@contextmanager
def new_directory(path: Path, kind: str = "output", *, force: bool = False, public: bool = False) -> Iterator[Path]:
    """Fill a hidden sibling directory that takes the place of ``path`` when the block ends well.

    Args:
        path: The directory to write.
        kind: What its mark says that it is.
        force: Whether what ``path`` holds may be replaced, if kvw wrote it.
        public: Whether others may read it, as far as the umask allows; else its mode is 0700.

    Yields:
        The directory to fill. If the block raises, it is removed and ``path`` stays as it was.

    Raises:
        UserError: See :func:`claimed`; or the disk is full.
    """
    with claimed(path, force=force) as claim:
        yield claim.empty()
        claim.publish(kind, public=public)


def partial_path(path: Path) -> Path:
    """Where the beginnings of ``path`` lie: a hidden sibling, the same for every run."""
    path = path.resolve()
    return path.parent / hidden_name(path.name, ".kvw-partial")


def replace_directory(new: Path, path: Path, old: Path) -> None:
    """Let a complete directory take the place of ``path``; what was there is at ``old`` afterwards.

    All three are on one file system. Where directories cannot be exchanged, a kill between two renames leaves what was
    there at ``old``, from where :meth:`Claim.recover` brings it back.
    """
    if not path.exists():
        new.rename(path)
    elif exchange(new, path):
        new.rename(old)
    else:
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise


def exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; False where the operating system or the file system cannot do that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    here, exchanging = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchanging) == 0:
        return True
    number = ctypes.get_errno()
    if number in NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


def discard(path: Path) -> None:
    """Remove whatever lies there; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(fitting_name(path.name, ending))


def _lock(root: Path, path: Path) -> tuple[int, list[Path]]:
    """Take the lock, which the operating system gives back when this process ends, however it ends.

    Returns:
        The lock's file, and the folders that had to be made above ``root``.
    """
    made: list[Path] = []
    while True:
        made += make_folders(root.parent, private=False)
        root.mkdir(PRIVATE_FOLDER, exist_ok=True)
        try:
            handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # another process has just come to its end and removed the directory
            continue
        if not take_lock(handle):
            os.close(handle)
            raise busy(path, root / LOCK)
        if os.fstat(handle).st_nlink:
            return handle, made
        os.close(handle)  # taken on a file that another process had removed
