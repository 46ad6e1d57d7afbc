"""A directory that is filled over several runs: whenever it is killed, the same run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kvw.checked import read_checked, write_checked
from kvw.claim import CONTENT, claimed, discard, partial_path
from kvw.errors import Unreadable, UserError
from kvw.files import PRIVATE_FOLDER, file_digest

JOB = "job.json"
FINISHED = "finished"


@dataclass(frozen=True)
class _Entry:
    """What is noted of a finished file."""

    size: int
    digest: str
    note: str


class PartialDirectory:
    """What is there so far of a directory that appears when it is complete.

    Attributes:
        folder: The directory to fill; it holds the finished files of earlier runs and nothing else.
        differing: Parts of the job in which an earlier run differed, whose files were therefore removed.
    """

    def __init__(self, root: Path, entries: Mapping[str, _Entry], differing: tuple[str, ...] = ()) -> None:
        self.folder = root / CONTENT
        self.differing = differing
        self._root = root
        self._entries = dict(entries)

    def finished(self) -> dict[str, str]:
        """The notes of :meth:`finish` by file name, for files whose bytes are still those of then."""
        return {name: entry.note for name, entry in self._entries.items()}

    def finish(self, name: str, note: str, digest: str = "") -> None:
        """Say that a file in ``folder`` is complete and on the disk, so that a later run keeps it.

        Args:
            name: Its name; it lies directly in ``folder``.
            note: What a later run has to know of it.
            digest: SHA-256 of the file; computed if it is not given.
        """
        path = self.folder / name
        entry = _Entry(path.stat().st_size, digest or file_digest(path), note)
        write_checked(_note_path(self._root, name), json.dumps(vars(entry)).encode("utf-8"))
        self._entries[name] = entry


def finished_before(path: Path, job: Mapping[str, str]) -> frozenset[str]:
    """Names of the files that :func:`resumable_directory` would find finished, if none was changed since.

    Looks and changes nothing; contents are not read.
    """
    root = partial_path(path)
    return frozenset(_noted(root)) if _read_job(root) == dict(job) else frozenset()


@contextmanager
def resumable_directory(
    path: Path,
    job: Mapping[str, str],
    kind: str = "output",
    *,
    force: bool = False,
    keep: Iterable[Path] = (),
    public: bool = False,
) -> Iterator[PartialDirectory]:
    """Fill a hidden sibling directory that takes the place of ``path`` when the block ends well.

    A kill, a loss of power or Ctrl-C leaves the sibling there, and the next run of the same job goes on with its
    finished files, and so does a file that could not be read. Any other error removes it.

    Args:
        path: The directory to write.
        job: Everything that decides what the files will hold, as digests by the name of the part. Files of a run whose
            job differs, or is not known any more, are removed.
        kind: What the mark of the directory says that it is.
        force: Whether what ``path`` holds may be replaced, if kvw wrote it.
        keep: What the run reads; never replaced.
        public: Whether others may read it, as far as the umask allows; else its mode is 0700.

    Yields:
        What is there already, to be completed.

    Raises:
        UserError: Another process is writing ``path``, ``path`` holds something and ``force`` is off, the disk is full,
            or the place cannot be written. ``path`` is as it was.
    """
    with claimed(path, force=force, keep=keep) as claim:
        partial = _prepare(claim.root, dict(job))
        try:
            yield partial
        except Exception as error:
            if isinstance(error, Unreadable):
                claim.leave()
            raise
        except BaseException:
            claim.leave()
            raise
        try:
            claim.publish(kind, public=public)
        except UserError:  # somebody else has put something there
            claim.leave()
            raise


def _prepare(root: Path, job: dict[str, str]) -> PartialDirectory:
    earlier = _read_job(root)
    if earlier != job:
        # The job goes last: as long as anything of it is left, it says whose it is.
        for name in (CONTENT, FINISHED, JOB):
            discard(root / name)
        write_checked(root / JOB, json.dumps(job).encode("utf-8"))
    for place in (root / CONTENT, root / FINISHED):
        if place.is_symlink() or not place.is_dir():
            discard(place)
        place.mkdir(PRIVATE_FOLDER, exist_ok=True)
    entries = {
        name: entry for name, entry in _noted(root).items() if file_digest(root / CONTENT / name) == entry.digest
    }
    for place in (root / CONTENT).iterdir():
        if place.name not in entries or place.is_symlink():
            discard(place)
    for place in (root / FINISHED).iterdir():  # of files that are no more, or half written
        if place.name.removesuffix(".json") not in entries:
            discard(place)
    if earlier is None or earlier == job:
        return PartialDirectory(root, entries)
    differing = sorted(name for name in earlier.keys() | job.keys() if earlier.get(name) != job.get(name))
    return PartialDirectory(root, entries, tuple(differing))


def _read_job(root: Path) -> dict[str, str] | None:
    content = read_checked(root / JOB)
    if content is None:
        return None
    job: dict[str, str] = json.loads(content)
    return job


def _noted(root: Path) -> dict[str, _Entry]:
    """What is noted of files that are there with the size that they had."""
    entries = {}
    for file in sorted((root / FINISHED).glob("*.json")):
        content, path = read_checked(file), root / CONTENT / file.name.removesuffix(".json")
        if content is not None and path.is_file():
            entry = _Entry(**json.loads(content))
            if path.stat().st_size == entry.size:
                entries[path.name] = entry
    return entries


def _note_path(root: Path, name: str) -> Path:
    return root / FINISHED / f"{name}.json"
