"""Small copies of published benchmarks in the hub's schema, about people that kvw invents: all of it is ours."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kvw.data.benchmarks.items import known
from kvw.files import new_directory
from kvw.measuring.cache import cache_directory

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
    with new_directory(folder) as temporary:
        _tables(benchmark).write(temporary)


def cached_copy(benchmark: str) -> Path:
    """The folder of a copy in the cache directory; written on the first call.

    Raises:
        UserError: There is no copy of this benchmark, or ``datasets`` is not installed.
    """
    content = hashlib.sha256(repr(_tables(benchmark)).encode())
    for module in DRAWING:  # tables name pictures, and what draws them may change
        content.update(Path(import_module(module).__file__ or "").read_bytes())
    folder = cache_directory() / "copies" / f"{benchmark}-{content.hexdigest()[:12]}"
    if not folder.is_dir():
        write_copy(benchmark, folder)
    return folder


def _tables(benchmark: str) -> Tables:
    module, name = COPIES[known(benchmark, COPIES, "toy copy", "kvw")]
    tables: Tables = getattr(import_module(module), name)()
    return tables
