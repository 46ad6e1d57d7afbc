"""Measuring examples: batched to fit, resumable, and kept on disk for the next run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from kvw.data.batches import Prepared, answer_batch, image_groups
from kvw.measuring.engine import Progress, evaluating, run_batch, statistics_of
from kvw.measuring.fitting import run_fitted, token_budget
from kvw.measuring.kept import KeptStatistics
from kvw.measuring.positions import Positions
from kvw.measuring.recorder import recording
from kvw.measuring.statistics import Statistics
from kvw.models.families import MatrixKey, ValueMatrix, find_value_matrices, select_layers

SECONDS_BETWEEN_SAVES = 30.0


@dataclass(frozen=True)
class Measured:
    """Statistics and how they came about.

    Args:
        statistics: The sums over all examples.
        reused: True if they were read from the cache and nothing was run.
        resumed_at: How many examples an interrupted run had already measured.
    """

    statistics: Statistics
    reused: bool = False
    resumed_at: int = 0


def measure_examples(
    model: PreTrainedModel,
    processor: Any,
    prepared: Sequence[Prepared],
    *,
    layers: tuple[int, int] | None = None,
    positions: Positions = "answer",
    fingerprint: Mapping[str, str] | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measure mean absolute coefficients over examples, many per forward, longest first.

    With a fingerprint the result is kept in the cache directory and found there the next time. An interrupted run
    leaves what it has, and the next one with the same fingerprint goes on from there to the same digits.

    Args:
        model: A loaded model.
        processor: Its processor.
        prepared: From :func:`kvw.data.prepare`.
        layers: First and last layer, 0-based, both included; None for the default range.
        positions: Which positions count.
        fingerprint: Everything that the sums depend on; None keeps nothing on disk.
        budget: Padded tokens per forward at the start; None for the device's default.
        progress: Called with examples done and their number.

    Raises:
        UserError: As :func:`kvw.measuring.engine.measure`, or an image cannot be read.
    """
    matrices = select_layers(find_value_matrices(model), layers)
    kept = KeptStatistics(fingerprint)
    finished = kept.finished()
    if finished:
        return Measured(finished, reused=True)
    start, total = kept.unfinished()
    running = _Running(total, start)
    budget = budget or token_budget(model.device)
    last_save = time.monotonic()
    with evaluating(model), recording(matrices) as recorder:

        def run(batch: list[Prepared]) -> tuple[dict[MatrixKey, Tensor], int]:
            recorder.restart()  # what an attempt that ran out of memory has left behind
            run_batch(model, recorder, answer_batch(batch, processor), positions)
            return dict(recorder.sums), recorder.count

        try:
            for group in _remaining(prepared, start):
                for indices, (sums, count) in run_fitted(group, [item.length for item in group], run, budget=budget):
                    running.add(sums, count, len(indices))
                    if progress:
                        progress(running.done, len(prepared))
                    if time.monotonic() - last_save > SECONDS_BETWEEN_SAVES:
                        kept.keep_unfinished(running.done, running.statistics(matrices))
                        last_save = time.monotonic()
        except KeyboardInterrupt:
            if running.done:
                kept.keep_unfinished(running.done, running.statistics(matrices))
            raise
    return Measured(kept.keep_finished(running.statistics(matrices)), resumed_at=start)


class _Running:
    """Totals over the batches so far, on the device of each layer."""

    def __init__(self, statistics: Statistics | None, done: int) -> None:
        sums = dict(statistics.sums) if statistics else {}
        count = next(iter(statistics.counts.values())) if statistics else 0
        self._state = (sums, count, done)

    @property
    def done(self) -> int:
        return self._state[2]

    def add(self, sums: Mapping[MatrixKey, Tensor], count: int, examples: int) -> None:
        old, old_count, done = self._state
        new = {
            key: value + old[key].to(value.device, value.dtype) if key in old else value for key, value in sums.items()
        }
        # One assignment: Ctrl-C never leaves some layers a batch ahead of the others.
        self._state = (new, old_count + count, done + examples)

    def statistics(self, matrices: Sequence[ValueMatrix]) -> Statistics:
        sums, count, _ = self._state
        return statistics_of(sums, count, matrices)


def _remaining(prepared: Sequence[Prepared], skip: int) -> list[list[Prepared]]:
    """The examples in the order in which they run, grouped by image count, without the first ``skip``."""
    groups = []
    for positions in image_groups(prepared):
        ordered = sorted(positions, key=lambda position: (-prepared[position].length, position))
        groups.append([prepared[position] for position in ordered[skip:]])
        skip = max(0, skip - len(ordered))
    return [group for group in groups if group]
