"""SHA-256 of everything that lies in a folder."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kvw.files import file_digest

NO_FILE = "no file"
"""Stands in place of a digest for what is no file, such as a link that leads nowhere."""


def folder_digests(folder: Path, without: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of all that lies in a folder and in those inside it, by the path from ``folder``.

    A link to a file counts as the file; one to a folder is not followed.

    Args:
        folder: The folder.
        without: Names of files and folders directly in it that are not looked at.

    Raises:
        OSError: A file cannot be read.
    """
    below = [path for path in folder.iterdir() if path.name not in without]
    # A path that is a link itself would be followed by rglob; links that it meets are not.
    below += [place for path in below if not path.is_symlink() for place in path.rglob("*")]
    paths = sorted(path for path in below if path.is_symlink() or not path.is_dir())
    with ThreadPoolExecutor() as pool:
        return dict(zip((path.relative_to(folder).as_posix() for path in paths), pool.map(_digest, paths), strict=True))


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else NO_FILE
