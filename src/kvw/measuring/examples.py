"""Measuring examples: batched to fit, resumable, and kept on disk for the next run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from kvw.data.batches import Prepared, answer_batch, image_groups
from kvw.measuring.batch_sizing import run_batched, token_budget
from kvw.measuring.engine import evaluating, run_batch, statistics_of
from kvw.measuring.fingerprint import digest
from kvw.measuring.kept import KeptStatistics
from kvw.measuring.prefixes import bundle, run_bundles, shares_prefixes
from kvw.measuring.recorder import Recorder, recording
from kvw.measuring.sources import Positions
from kvw.measuring.statistics import Statistics
from kvw.measuring.totals import Totals
from kvw.models.finding import find_value_matrices, in_layers
from kvw.models.placement import execution_device
from kvw.models.value_matrix import MatrixKey
from kvw.processes import current
from kvw.progress import Progress

SECONDS_BETWEEN_SAVES = 30.0
BUNDLES_OF_TEXTS = 8
"""Most bundles of texts in a batch, since all of them may begin alike, and a bundle cannot be cut when memory runs
out."""


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

    Several processes (:func:`kvw.processes.together`) share the batches among them, and the result has the digits that
    one process gives.

    Args:
        model: A loaded model.
        processor: Its processor.
        prepared: From :func:`kvw.data.prepare`.
        layers: First and last layer, 0-based, both included; None for all.
        positions: Which positions count.
        fingerprint: Everything that the sums depend on; None keeps nothing on disk.
        budget: Padded tokens per forward at the start; None for the device's default.
        progress: Called with examples done and their number.

    Raises:
        UserError: As :func:`kvw.measuring.engine.measure`, or an image cannot be read.
    """
    matrices = in_layers(find_value_matrices(model), layers)
    kept = KeptStatistics(fingerprint)
    if finished := current().broadcast(kept.finished):
        return Measured(finished, reused=True)
    share = positions == "answer" and shares_prefixes(model)
    budget = budget or token_budget(execution_device(model))
    groups = _bundled(prepared, share, budget)
    order = _order_digest(groups)
    start, total = current().broadcast(lambda: kept.unfinished(order))
    running = Totals(total, start)
    last_save = time.monotonic()
    with evaluating(model), recording(matrices) as recorder:
        run = partial(_run_bundles, model, recorder, processor, positions, share)
        try:
            for group in _without(groups, start):
                lengths = [sum(item.length for item in alike) for alike in group]
                for indices, (sums, counts) in run_batched(group, lengths, run, budget=budget):
                    running.add(sums, counts, sum(len(group[index]) for index in indices))
                    if progress:
                        progress(running.done, len(prepared))
                    if time.monotonic() - last_save > SECONDS_BETWEEN_SAVES:
                        kept.keep_unfinished(running.done, order, running.so_far())
                        last_save = time.monotonic()
        finally:
            if start < running.done < len(prepared):
                kept.keep_unfinished(running.done, order, running.so_far())
    whole = current().broadcast(lambda: kept.keep_finished(statistics_of(running.sums, running.counts, matrices)))
    return Measured(whole, resumed_at=start)


def _run_bundles(
    model: PreTrainedModel,
    recorder: Recorder,
    processor: Any,
    positions: Positions,
    share: bool,
    batch: list[list[Prepared]],
) -> tuple[dict[MatrixKey, Tensor], dict[MatrixKey, int]]:
    """Sums and counts of one batch."""
    recorder.restart()  # what an attempt that ran out of memory has left behind
    if share and (batch[0][0].image_count or any(len(alike) > 1 for alike in batch)):
        run_bundles(model, recorder, batch, processor)
    else:
        run_batch(model, recorder, answer_batch([alike[0] for alike in batch], processor), positions)
    return dict(recorder.sums), dict(recorder.counts)


def _bundled(prepared: Sequence[Prepared], share: bool, budget: int) -> list[list[list[Prepared]]]:
    bundles = []
    for places in image_groups(prepared):
        items = [prepared[place] for place in places]
        most = budget if items[0].image_count else budget // BUNDLES_OF_TEXTS
        bundles.append(bundle(items, share=share, budget=most))
    return bundles


def _order_digest(groups: Sequence[list[list[Prepared]]]) -> str:
    return digest([[item.full, str(item.example.images)] for group in groups for alike in group for item in alike])


def _without(groups: Sequence[list[list[Prepared]]], skip: int) -> list[list[list[Prepared]]]:
    """The bundles that are left once the first ``skip`` examples, in the order in which they run, are done."""
    remaining = []
    for group in groups:
        left = []
        # run_batched takes the longest bundles first, so that is the order in which they were done.
        for alike in sorted(group, key=lambda alike: -sum(item.length for item in alike)):
            if skip > 0:
                skip -= len(alike)
            else:
                left.append(alike)
        remaining.append(left)
    return [group for group in remaining if group]
