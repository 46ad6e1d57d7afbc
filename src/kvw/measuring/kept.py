"""Statistics kept on disk under their fingerprint, finished and unfinished."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kvw.cache import cache_directory
from kvw.checked import tell_damaged
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest
from kvw.measuring.statistics import Statistics

logger = logging.getLogger(__name__)

DONE, ORDER = "examples done", "order of the examples"
"""Fingerprint parts that only an unfinished file carries."""


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
        return _read(path) if path else None

    def unfinished(self, order: str) -> tuple[int, Statistics | None]:
        """How many examples an interrupted run had measured, and their statistics.

        Args:
            order: Digest of the order in which this run goes through the examples. An unfinished file of another
                order is of no use: its examples are not the first ones of this run.
        """
        path = self._path(".unfinished.safetensors")
        statistics = _read(path) if path else None
        if statistics is None or statistics.fingerprint.get(ORDER) != order:
            return 0, None
        return int(statistics.fingerprint[DONE]), statistics

    def keep_unfinished(self, done: int, order: str, statistics: Statistics) -> None:
        """Leave what an interrupted run has."""
        path = self._path(".unfinished.safetensors")
        if path is not None and self._fingerprint is not None:
            _write(path, replace(statistics, fingerprint={**self._fingerprint, DONE: str(done), ORDER: order}))

    def keep_finished(self, statistics: Statistics) -> Statistics:
        """Keep the finished statistics, drop the unfinished ones, and return the former with their fingerprint."""
        path = self._path(".safetensors")
        if path is None or self._fingerprint is None:
            return statistics
        statistics = replace(statistics, fingerprint=self._fingerprint)
        if _write(path, statistics):
            path.with_suffix(".unfinished.safetensors").unlink(missing_ok=True)
        return statistics

    def _path(self, ending: str) -> Path | None:
        if self._fingerprint is None:
            return None
        return cache_directory() / "statistics" / (digest(self._fingerprint) + ending)


def _read(path: Path) -> Statistics | None:
    if not path.is_file():
        return None
    try:
        return Statistics.load(path)
    except UserError as error:
        # A damaged file of the cache is the cache's problem: measure again and replace it.
        tell_damaged(path, error.found)
        return None


def _write(path: Path, statistics: Statistics) -> bool:
    try:
        statistics.save(path)
    except UserError as error:
        logger.warning("the statistics could not be kept for the next run: %s", error)
        return False
    return True
