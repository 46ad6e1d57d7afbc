"""What a run may write to, found out before the work begins."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvw.errors import UserError
from kvw.files import explained, make_folders, take_lock
from kvw.mark import MARK, mark_growing, marked_kind, strangers

LONGEST_HEADER = 2**26
"""Bytes of a safetensors header that is looked at."""


def check_output_directory(path: Path, *, force: bool, keep: Iterable[Path] = ()) -> None:
    """Find out whether an output directory can be written.

    Args:
        path: The directory.
        force: Whether what it holds may be replaced, if kvw wrote it.
        keep: Files and folders that the run reads; never replaced, forced or not.

    Raises:
        UserError: ``path`` is or holds one of ``keep``, the current folder or the user's own one, is a file or a mount
            point, holds something and ``force`` is off, holds something that kvw did not write, or cannot be made.
    """
    with explained(path):
        path = path.resolve()
        _check_utf8(path)
        _refuse_inputs(path, keep)
        _refuse_places(path)
        if path.is_dir():
            _refuse_content(path, force=force)
        elif path.exists() or path.is_symlink():
            raise UserError(f"The output directory {path} is a file.", do="name another --out")
        check_parent(path)


def check_output_file(path: Path, *, force: bool, keep: Iterable[Path] = (), form: str = "") -> None:
    """Find out whether a file can be written.

    Args:
        path: The file.
        force: Whether it may be replaced, if it is of the same form.
        keep: Files that the run reads; never replaced, forced or not.
        form: What the header of a safetensors file says of its format, without the version; empty if nothing is
            replaced.

    Raises:
        UserError: It is one of ``keep``, is a folder, is there and ``force`` is off, is of another form, or cannot be
            written.
    """
    with explained(path):
        _check_utf8(path)
        if path.resolve() in [place for needed in keep for place in _places(needed)]:
            raise UserError(f"{path} is a file that this command reads.", do="name another --out")
        if path.is_dir():
            raise UserError(f"{path} is a folder.", do="name another --out")
        if path.exists() or path.is_symlink():
            if not force:
                raise UserError(f"{path} exists.", do="name another --out, or add --force to replace it")
            if not (form and _is_of(path, form)):
                raise UserError(
                    f"{path} is not a file that this command writes, so --force does not replace it.",
                    found=f"no {form}" if form else "",
                    do="name another --out, or remove the file yourself",
                )
        check_parent(path)


@contextmanager
def growing_directory(path: Path, kind: str) -> Iterator[None]:
    """Make a folder that grows over several runs, or go on with it, as the only process that writes there.

    Args:
        path: The folder.
        kind: What it is marked as.

    Raises:
        UserError: It holds something else, another process writes there, or it cannot be written.
    """
    with explained(path):
        make_folders(path, private=True)
        if marked_kind(path) != kind:
            names = sorted(entry.name for entry in path.iterdir())
            if names:
                raise UserError(
                    f"{path} holds something other than this command writes.",
                    found=_listed(names),
                    do="name another --out, a new folder",
                )
            mark_growing(path, kind)
        handle = os.open(path / MARK, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not take_lock(handle):
            raise busy(path, path / MARK)
        yield
    finally:
        os.close(handle)


def busy(path: Path, lock: Path) -> UserError:
    """The error for a place that another process is writing."""
    return Busy(
        f"Another process is writing {path} at this moment.",
        found=f"a lock on {lock}",
        do="wait until it is done, or name another --out",
    )


class Busy(UserError):
    """Another process is writing the same place."""


def _is_of(path: Path, form: str) -> bool:
    """Whether a safetensors file says that it is of a form: its header has an entry of this name, or a format."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= LONGEST_HEADER else {}
    except (OSError, ValueError, RecursionError):
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and (form in metadata or str(metadata.get("format")).startswith(f"{form} "))


def _check_utf8(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            "The path of the output is not UTF-8, and weights can only be written under such names.",
            found=ascii(str(path)),
            do="name another --out",
        ) from None


def _refuse_inputs(path: Path, keep: Iterable[Path]) -> None:
    for needed in keep:
        for place in _places(needed):
            if path in (place, *place.parents):
                raise UserError(
                    f"The output directory {path} is or holds {needed}, which this run reads.", do="name another --out"
                )


def _places(path: Path) -> Iterator[Path]:
    """Where a file or folder lies, and where every link on the way to it lies."""
    path = path.absolute()
    yield path.resolve()
    for _ in range(40):  # as many links as Linux follows
        yield path.parent.resolve() / path.name
        if not path.is_symlink():
            return
        path = path.parent.resolve() / path.readlink()


def _refuse_places(path: Path) -> None:
    places = {"the current folder": Path.cwd(), "your home folder": Path.home()}
    for name, place in places.items():
        if path in (place.resolve(), *place.resolve().parents):
            raise UserError(f"The output directory {path} is or holds {name}.", do="name a folder inside it")


def _refuse_content(path: Path, *, force: bool) -> None:
    entries = sorted(entry.name for entry in path.iterdir())
    if entries and not force:
        raise UserError(
            f"The output directory {path} is not empty.",
            found=_listed(entries),
            do="name another --out, or add --force to replace what kvw wrote there",
        )
    if path.is_mount():
        raise UserError(f"The output directory {path} is a mount point.", do="name a folder inside it")
    if not entries:
        return
    others = strangers(path)
    if others is None:
        raise UserError(
            f"The output directory {path} does not carry kvw's mark ({MARK}), so --force does not replace it.",
            found=_listed(entries),
            do="name another --out, or remove the folder yourself if nothing in it is needed",
        )
    if others:
        raise UserError(
            f"The output directory {path} holds files that kvw did not write, so --force does not replace it.",
            found=_listed(others),
            do="move them to another place, or name another --out",
        )


def check_parent(path: Path) -> None:
    """Raise what writing a path would raise, as far as looking can tell.

    Raises:
        OSError: The nearest folder above it that exists is none, or nothing may be written there.
    """
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
