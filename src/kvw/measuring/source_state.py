"""The files of a checkpoint as they are at one moment, so that a change while a run reads them is found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from kvw.errors import UserError
from kvw.files import file_digest
from kvw.models.companions import belonging
from kvw.models.weight_files import weight_files

State = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of modification and of change in nanoseconds."""


def file_state(path: Path) -> State:
    """What tells whether a file is still the same; the change time cannot be set back by tools that restore files."""
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def checkpoint_digests(folder: Path, weights: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each file that belongs to a checkpoint, by its path from the folder.

    Args:
        folder: The checkpoint.
        weights: Those of its weight files, by name.
    """
    others = {path.relative_to(folder).as_posix(): file_digest(path) for path in belonging(folder)}
    return {**others, **weights}


class SourceState:
    """A checkpoint's files as they are now.

    Args:
        folder: The checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._weights = {path: file_state(path) for path in weight_files(folder)}
        self._others = {path: file_digest(path) for path in belonging(folder)}

    def check(self, digests: Mapping[str, str] | None = None, *, linked: Collection[str] = ()) -> None:
        """Refuse to go on if a file is not what it was.

        Args:
            digests: SHA-256 of weight files as they were, as far as known. A file that was only touched passes; without
                its digest it does not.
            linked: Weight files that this run has hard-linked, which changes their change time.

        Raises:
            UserError: A file was changed, added or removed.
        """
        changed = []
        if weight_files(self._folder) != list(self._weights):
            changed.append("the list of weight files")
        for path, before in self._weights.items():
            same = _state(path) == before or (path.name in linked and _state(path)[:4] == before[:4])
            known = (digests or {}).get(path.name)
            if not same and (known is None or not path.is_file() or file_digest(path) != known):
                changed.append(path.name)
        now = belonging(self._folder)
        changed += [path.name for path in sorted({*now} ^ {*self._others})]
        changed += [path.name for path in now if path in self._others and file_digest(path) != self._others[path]]
        if changed:
            raise UserError(
                f"The checkpoint {self._folder.name} was changed while it was read.",
                found=", ".join(changed[:5]) + (", ..." if len(changed) > 5 else ""),
                do="run again when it is at rest",
            )


def _state(path: Path) -> State | tuple[()]:
    return file_state(path) if path.is_file() else ()
