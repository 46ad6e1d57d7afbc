"""A directory that is filled over several runs: whenever it is killed, the same run goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kvw.errors import Unreadable, UserError
from kvw.files import check_output_directory, explained, replace_directory, sync_directory, write_text

LOCK = "lock"
JOB = "job.json"
FINISHED = "finished"
CONTENT = "content"


class PartialDirectory:
    """What is there so far of a directory that appears when it is complete.

    Attributes:
        folder: The directory to fill; it holds the finished files of earlier runs and nothing else.
        differing: Parts of the job in which an earlier run differed, whose files were therefore removed.
    """

    def __init__(self, root: Path, differing: tuple[str, ...] = ()) -> None:
        self.folder = root / CONTENT
        self.differing = differing
        self._root = root

    def finished(self) -> dict[str, str]:
        """The notes of :meth:`finish` by file name, for files that are still as they were then."""
        return _finished(self._root)

    def finish(self, name: str, note: str) -> None:
        """Say that a file in ``folder`` is complete and on the disk, so that a later run keeps it.

        Args:
            name: Its name; it lies directly in ``folder``.
            note: What a later run has to know of it.
        """
        entry = {"state": _state(self.folder / name), "note": note}
        write_text(self._root / FINISHED / f"{name}.json", json.dumps(entry))


def partial_path(path: Path) -> Path:
    """Where the beginnings of ``path`` lie: a hidden sibling, the same for every run."""
    path = path.resolve()
    return path.parent / f".{path.name}.kvw-partial"


def finished_before(path: Path, job: Mapping[str, str]) -> frozenset[str]:
    """Names of the files that :func:`resumable_directory` would find finished; looks and changes nothing."""
    root = partial_path(path)
    return frozenset(_finished(root)) if _read_job(root) == dict(job) else frozenset()


@contextmanager
def resumable_directory(path: Path, job: Mapping[str, str], *, force: bool = False) -> Iterator[PartialDirectory]:
    """Fill a hidden sibling directory that takes the place of ``path`` when the block ends well.

    A kill, a loss of power or Ctrl-C leaves the sibling there, and the next run of the same job goes on with its
    finished files, and so does a file that could not be read. Any other error removes it.

    Args:
        path: The directory to write.
        job: Everything that decides what the files will hold, as digests by the name of the part. Files of a run whose
            job differs are removed.
        force: Whether what ``path`` holds may be replaced.

    Yields:
        What is there already, to be completed.

    Raises:
        UserError: Another process is writing ``path``, ``path`` holds something and ``force`` is off, the disk is full,
            or the place cannot be written. ``path`` is as it was.
    """
    check_output_directory(path, force=force)
    path, root = path.resolve(), partial_path(path)
    with explained(path), _locked(root, path):
        partial = PartialDirectory(root, _prepare(root, dict(job)))
        try:
            yield partial
            sync_directory(partial.folder)
        except Unreadable:
            raise
        except Exception:
            _remove(root)
            raise
        check_output_directory(path, force=force)  # somebody else may have put something there in the meantime
        replace_directory(partial.folder, path)
        _remove(root)


@contextmanager
def _locked(root: Path, path: Path) -> Iterator[None]:
    handle = _lock(root, path)
    try:
        yield
    finally:
        os.close(handle)


def _lock(root: Path, path: Path) -> int:
    """Take the lock, which the operating system gives back when this process ends, however it ends."""
    while True:
        root.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # another process has just come to its end and removed the directory
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UserError(
                f"Another process is writing {path} at this moment.",
                found=f"a lock on {root / LOCK}",
                do="wait until it is done, or name another --out",
            ) from None
        except BaseException:
            os.close(handle)
            raise
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # taken on a file that another process had removed


def _prepare(root: Path, job: dict[str, str]) -> tuple[str, ...]:
    found = _read_job(root)
    if found != job:
        _empty(root)
        write_text(root / JOB, json.dumps(job))
    (root / CONTENT).mkdir(exist_ok=True)
    finished = _finished(root)
    for entry in (root / CONTENT).iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in finished:
            entry.unlink()
    for note in (root / FINISHED).glob("*"):  # of files that are no more, or that a kill left half written
        if note.name.removesuffix(".json") not in finished:
            note.unlink()
    if found is None:
        return ()
    return tuple(sorted(name for name in found.keys() | job.keys() if found.get(name) != job.get(name)))


def _read_job(root: Path) -> dict[str, str] | None:
    if not (root / JOB).is_file():
        return None
    found: dict[str, str] = json.loads((root / JOB).read_text("utf-8"))
    return found


def _finished(root: Path) -> dict[str, str]:
    notes = {}
    for file in sorted((root / FINISHED).glob("*.json")):
        entry, path = json.loads(file.read_text("utf-8")), root / CONTENT / file.name.removesuffix(".json")
        if path.is_file() and _state(path) == entry["state"]:
            notes[path.name] = entry["note"]
    return notes


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_ino, state.st_size, state.st_mtime_ns]


def _empty(root: Path) -> None:
    # The job goes last: as long as anything of it is left, it says whose it is.
    for name in (CONTENT, FINISHED):
        if (root / name).exists():
            shutil.rmtree(root / name)
    (root / JOB).unlink(missing_ok=True)


def _remove(root: Path) -> None:
    # The lock goes last, because whoever finds none may start to write here.
    for entry in root.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            entry.unlink()
    (root / LOCK).unlink()
    with suppress(OSError):  # another process may have begun there
        root.rmdir()
