"""Statistics kept on disk under their fingerprint, finished and unfinished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kvw.measuring.cache import cache_directory
from kvw.measuring.fingerprint import digest
from kvw.measuring.statistics import Statistics

DONE = "examples done"
"""The fingerprint part that only an unfinished file carries."""


class KeptStatistics:
    """The place of one measurement in the cache directory.

    Args:
        fingerprint: Everything that the sums depend on; None for a measurement that is not kept.
    """

    def __init__(self, fingerprint: Mapping[str, str] | None) -> None:
        self._fingerprint = dict(fingerprint) if fingerprint is not None else None

    def finished(self) -> Statistics | None:
        """The finished statistics, if an earlier run left them."""
        path = self._path(".safetensors")
        return Statistics.load(path) if path and path.is_file() else None

    def unfinished(self) -> tuple[int, Statistics | None]:
        """How many examples an interrupted run had measured, and their statistics."""
        path = self._path(".unfinished.safetensors")
        if path is None or not path.is_file():
            return 0, None
        statistics = Statistics.load(path)
        return int(statistics.fingerprint[DONE]), statistics

    def keep_unfinished(self, done: int, statistics: Statistics) -> None:
        """Leave what an interrupted run has."""
        path = self._path(".unfinished.safetensors")
        if path is not None and self._fingerprint is not None:
            replace(statistics, fingerprint={**self._fingerprint, DONE: str(done)}).save(path)

    def keep_finished(self, statistics: Statistics) -> Statistics:
        """Keep the finished statistics, drop the unfinished ones, and return the former with their fingerprint."""
        path = self._path(".safetensors")
        if path is None or self._fingerprint is None:
            return statistics
        statistics = replace(statistics, fingerprint=self._fingerprint)
        statistics.save(path)
        path.with_suffix(".unfinished.safetensors").unlink(missing_ok=True)
        return statistics

    def _path(self, ending: str) -> Path | None:
        if self._fingerprint is None:
            return None
        return cache_directory() / "statistics" / (digest(self._fingerprint) + ending)
