"""Adding up the sums and counts of batches."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kvw.measuring.statistics import Statistics
from kvw.models.value_matrix import MatrixKey


class Totals:
    """Totals over the batches so far, on the device of each layer.

    Args:
        statistics: Totals to start with, from an interrupted run.
        done: How many examples they hold.
    """

    def __init__(self, statistics: Statistics | None = None, done: int = 0) -> None:
        sums = dict(statistics.sums) if statistics else {}
        counts = dict(statistics.counts) if statistics else {}
        self._state = (sums, counts, done)

    @property
    def sums(self) -> Mapping[MatrixKey, Tensor]:
        """The sum of abs(m) by value matrix: (width,), float64 (float32 on devices without it)."""
        return self._state[0]

    @property
    def counts(self) -> Mapping[MatrixKey, int]:
        """The number of positions summed, by value matrix."""
        return self._state[1]

    @property
    def done(self) -> int:
        """How many examples the totals hold."""
        return self._state[2]

    def add(self, sums: Mapping[MatrixKey, Tensor], counts: Mapping[MatrixKey, int], examples: int) -> None:
        """Add the sums and counts of one batch. The order of the batches makes a difference in the last digits."""
        all_sums, all_counts, done = dict(self._state[0]), dict(self._state[1]), self._state[2]
        for key, value in sums.items():
            all_sums[key] = value + all_sums[key].to(value.device, value.dtype) if key in all_sums else value
            all_counts[key] = counts[key] + all_counts.get(key, 0)
        # One assignment: Ctrl-C never leaves some layers a batch ahead of the others.
        self._state = (all_sums, all_counts, done + examples)

    def so_far(self) -> Statistics:
        """The totals, complete or not."""
        sums, counts, _ = self._state
        return Statistics({key: value.cpu().double() for key, value in sums.items()}, counts)
