"""The folder where statistics and unfinished work are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """``$KVW_CACHE`` if set, else ``kvw`` in the user's cache directory."""
    chosen = os.environ.get("KVW_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvw"
