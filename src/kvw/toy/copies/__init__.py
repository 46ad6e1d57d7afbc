"""Small copies of published benchmarks in the hub's schema, about people that kvw invents: all of it is ours."""

from __future__ import annotations

import fcntl
import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kvw.cache import cache_directory
from kvw.checked import read_checked, tell_damaged, write_checked
from kvw.claim import discard, new_directory
from kvw.files import file_digest, make_folders
from kvw.known import known

if TYPE_CHECKING:
    from kvw.toy.copies.writing import Tables

SOURCE = "toy"
"""What a recipe gives as the source of a benchmark to get the copy."""
COPIES = {"clear": ("kvw.toy.copies.clear", "clear"), "mllmu": ("kvw.toy.copies.mllmu", "mllmu")}
"""Benchmarks of which there is a copy, and where their tables are made."""
DRAWING = ("kvw.toy.portraits", "kvw.toy.shapes", "kvw.toy.copies.writing")
"""What makes files of the tables."""


def write_copy(benchmark: str, folder: Path) -> None:
    """Write the copy of a benchmark: Parquet files in a folder for each table, and a README that declares them.

    Args:
        benchmark: A key of ``COPIES``.
        folder: A new or empty folder.

    Raises:
        UserError: There is no copy of this benchmark, the folder holds something, or ``datasets`` is not installed.
    """
    with new_directory(folder, "benchmark copy") as temporary:
        _tables(benchmark).write(temporary)


def cached_copy(benchmark: str) -> Path:
    """The folder of a copy in the cache directory; written on the first call, and again if it is damaged.

    Raises:
        UserError: There is no copy of this benchmark, or ``datasets`` is not installed.
    """
    content = hashlib.sha256(repr(_tables(benchmark)).encode())
    for module in DRAWING:  # tables name pictures, and what draws them may change
        content.update(Path(import_module(module).__file__ or "").read_bytes())
    folder = cache_directory() / "copies" / f"{benchmark}-{content.hexdigest()[:16]}"
    sums = folder.with_name(f"{folder.name}.json")
    make_folders(folder.parent, private=True)
    with (folder.parent / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second finds it written
        if not _intact(folder, sums):
            discard(folder)
            write_copy(benchmark, folder)
            write_checked(sums, json.dumps(_digests(folder)).encode("utf-8"))
    return folder


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _intact(folder: Path, sums: Path) -> bool:
    """Whether a copy is what was written, byte for byte; tells if it is not."""
    content = read_checked(sums)
    if content is not None and json.loads(content) == _digests(folder):
        return True
    if content is not None:
        tell_damaged(folder, "another SHA-256")
    return False


def _tables(benchmark: str) -> Tables:
    module, name = COPIES[known(benchmark, COPIES, "toy copy")]
    tables: Tables = getattr(import_module(module), name)()
    return tables
