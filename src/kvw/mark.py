"""The mark that kvw leaves in folders that it writes, by which it knows later what it may replace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from kvw._version import __version__
from kvw.files import write_text

MARK = ".kvw"
FORMAT = "kvw output 1"
_asked: ContextVar[tuple[Path, Mapping[str, str]] | None] = ContextVar("asked", default=None)


@contextmanager
def asked(path: Path, request: Mapping[str, str]) -> Iterator[None]:
    """Let the folder that the block puts at ``path`` carry what was asked; both appear in one step.

    Args:
        path: The folder.
        request: Digests by name.
    """
    token = _asked.set((path.resolve(), request))
    try:
        yield
    finally:
        _asked.reset(token)


def asked_for(path: Path) -> Mapping[str, str] | None:
    """What :func:`asked` said of a folder; None if it is another, or nobody said anything."""
    said = _asked.get()
    return said[1] if said is not None and said[0] == path.resolve() else None


def marked_request(folder: Path) -> dict[str, str] | None:
    """What was asked when a complete folder was made, see :func:`asked`; None if it does not say."""
    found = (_read(folder) or {}).get("request")
    return found if isinstance(found, dict) else None


def write_mark(folder: Path, kind: str, *, public: bool = False, request: Mapping[str, str] | None = None) -> None:
    """Mark a complete folder: what it is, the version of kvw, and the names of the files that it holds now.

    Args:
        folder: The folder.
        kind: ``run``, ``model``, ...
        public: Whether others may read the mark.
        request: Digests of what was asked, by name; None if nobody will want to know.
    """
    more = {} if request is None else {"request": dict(request)}
    _write(folder, {"kind": kind, "files": _files(folder), **more}, public=public)


def mark_growing(folder: Path, kind: str) -> None:
    """Mark a folder that will grow, without a list of files: it is gone on with and never replaced."""
    _write(folder, {"kind": kind}, public=False)


def mark_also(folder: Path, name: str) -> None:
    """Add a file to what the mark of a complete folder lists; without such a mark nothing is done."""
    mark = _read(folder)
    if mark is None or not isinstance(mark.get("files"), list) or name in mark["files"]:
        return
    content = {**mark, "files": sorted([*mark["files"], name])}
    _write(folder, content, public=bool((folder / MARK).stat().st_mode & 0o004))


def marked_kind(folder: Path) -> str | None:
    """The kind that a folder is marked as; None if it carries no mark."""
    mark = _read(folder)
    return mark.get("kind") if mark else None


def strangers(folder: Path) -> list[str] | None:
    """Names of files in a folder that kvw did not write; None if the folder does not carry the mark of a complete one.

    Files are told by their names: one that was changed since is still one of those that kvw wrote.
    """
    mark = _read(folder)
    if mark is None or not isinstance(mark.get("files"), list):
        return None
    known = {name for name in mark["files"] if isinstance(name, str)}
    return [name for name in _files(folder) if name not in known]


def _write(folder: Path, content: dict[str, Any], *, public: bool) -> None:
    entry = {"format": FORMAT, "kvw": __version__} | content
    write_text(folder / MARK, json.dumps(entry, indent=1) + "\n", public=public)


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / MARK
    if path.is_symlink() or not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def _files(folder: Path) -> list[str]:
    """Everything but real folders, by the path from ``folder``; links are not followed."""
    names = [
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    ]
    return sorted(name for name in names if name != MARK)
