"""The folder where statistics and unfinished work are kept between runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


def cache_directory() -> Path:
    """``$KVW_CACHE`` if set, else ``kvw`` in the user's cache directory."""
    chosen = os.environ.get("KVW_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvw"


KINDS = {
    "answers": "what models said and scored, by digests of the questions",
    "statistics": "coefficients of retain sets of --method kvw, and unfinished passes",
    "moments": "second moments of the shipped questions, by model",
    "audits": "results of attacks",
    "known": "which facts of the proving ground a model knows",
    "digests": "digests of weight files",
    "copies": "small copies of benchmarks",
}
"""What lies in the folders of the cache that can be made again. Others are models that were made once."""


@dataclass(frozen=True)
class Kept:
    """A folder of the cache.

    Args:
        kind: One of ``KINDS``.
        files: How many files it holds.
        bytes: Their size.
    """

    kind: str
    files: int
    bytes: int


def kept() -> list[Kept]:
    """What the cache holds of each kind; kinds of which there is nothing are left out."""
    found = []
    for kind in KINDS:
        sizes = [path.stat().st_size for path in (cache_directory() / kind).rglob("*") if path.is_file()]
        if sizes:
            found.append(Kept(kind, len(sizes), sum(sizes)))
    return found


def clear() -> list[Kept]:
    """Remove what can be made again; models and the secret of this machine stay.

    Returns:
        What was there.

    Raises:
        OSError: A folder cannot be removed.
    """
    found = kept()
    for kind in KINDS:
        folder = cache_directory() / kind
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
    return found
