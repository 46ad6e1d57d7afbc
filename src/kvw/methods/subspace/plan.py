"""How long subspace weakening would take, and what it would hold in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from kvw.data import Prepared
from kvw.measuring.engine import Batch
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.layer_calls import NotWalkable
from kvw.measuring.layerwise import Layers, WaitingSet
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.plans import Examples, every_example
from kvw.measuring.prefixes import SharedBatch
from kvw.methods.method import LoadedModel
from kvw.methods.plan import MethodPlan, Waiting, timed
from kvw.methods.subspace.labels import EverySoManyth, labels_of
from kvw.methods.subspace.memory import memory_plan
from kvw.methods.subspace.method import check_views, matrices_in, passes, passes_instead
from kvw.methods.subspace.paths import chosen_path
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.solver import reduced_metric
from kvw.models.placement import execution_device
from kvw.models.value_matrix import ValueMatrix

DECOMPOSITIONS = 4
"""A Cholesky factor and two triangular solves of many columns, in units of the factor, generously."""


def subspace_plan(
    loaded: LoadedModel, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: SubspaceSettings
) -> MethodPlan:
    """Time the largest batch of both sets and one factorisation, and count bytes from shapes.

    Raises:
        UserError: The settings ask more of the data than there is.
    """
    model = loaded.model
    check_views(settings, labels_of([item.example for item in forget]))
    matrices = matrices_in(model, settings)
    groups, walk = passes(matrices, settings), None
    sets = {"forget": forget, "retain": retain}
    batches = {name: LabelledBatches(items, loaded.processor, model) for name, items in sets.items()}
    if chosen_path(model, matrices, settings) == "layer by layer":
        try:
            walk = _walk(model, passes(matrices, settings, 1), batches, settings)
            groups = passes(matrices, settings, 1)
        except NotWalkable:
            if settings.path is not None or settings.retain_rows is not None:
                raise
            groups = passes_instead(model, matrices, settings)
    widest = max(matrices, key=lambda matrix: matrix.width)
    one_solve = _seconds_of_a_solve(model, widest.width, settings)
    running = walk.seconds if walk else _seconds_of_passes(model, groups, batches, settings)

    ordered = [retain[place] for place in batches["retain"].order]
    keep = EverySoManyth(labels_of([item.example for item in ordered]), settings.null_every)
    null = sum(len(item.answer_ids) for row, item in enumerate(ordered) if keep(row))
    memory = memory_plan(
        groups,
        folds=settings.folds,
        forget=sum(len(item.answer_ids) for item in forget),
        null=null,
        token_bytes=model.dtype.itemsize,
        sequential=settings.schedule == "sequential",
        retain_rows=settings.retain_rows,
        waiting=walk.waiting if walk else None,
    )
    growth = 1 if settings.retain_rows else 3  # rows are as many in narrow matrices, a factor is not
    solves = one_solve * sum((matrix.width / widest.width) ** growth for matrix in matrices)
    return MethodPlan(seconds={"weakening": running + solves}, memory=memory)


@dataclass(frozen=True)
class _Walk:
    """What it takes to measure layer by layer."""

    seconds: float
    waiting: Waiting

    def __add__(self, other: _Walk) -> _Walk:
        states = self.waiting.states + other.waiting.states
        arguments = self.waiting.arguments + other.waiting.arguments
        return _Walk(self.seconds + other.seconds, Waiting(states, arguments))


def _walk(
    model: PreTrainedModel,
    groups: Sequence[Sequence[ValueMatrix]],
    batches: Mapping[str, LabelledBatches],
    settings: SubspaceSettings,
) -> _Walk:
    """Let the largest batch of each set pass all layers."""
    layers = Layers(model, [matrix for group in groups for matrix in group])

    def retain(some: Sequence[Batch | SharedBatch], rows: int) -> WaitingSet:
        folds = [*[0] * (rows - 1), settings.folds - 1]
        examples = Examples(folds=folds if settings.folds > 1 else None, keep=every_example)
        return WaitingSet.entered(layers, some, sources=settings.sources, examples=examples)

    def forget(some: Sequence[Batch | SharedBatch], rows: int) -> WaitingSet:
        return WaitingSet.of_tokens(layers, some)

    def retained(waiting: WaitingSet, group: Sequence[ValueMatrix]) -> object:
        rows = settings.retain_rows
        return waiting.moments(group) if rows is None else waiting.rows(group, rows)

    passed = _passed(batches["forget"], forget, WaitingSet.tokens, groups)
    if settings.schedule == "sequential":  # each layer is measured first and passed when it has been weakened
        passed = replace(passed, seconds=2 * passed.seconds)
    return passed + _passed(batches["retain"], retain, retained, groups)


def _passed(
    batches: LabelledBatches,
    enter: Callable[[Sequence[Batch | SharedBatch], int], WaitingSet],
    measured: Callable[[WaitingSet, Sequence[ValueMatrix]], object],
    groups: Sequence[Sequence[ValueMatrix]],
) -> _Walk:
    sizes = batches.sizes
    largest = max(range(len(sizes)), key=lambda index: sizes[index][0] * sizes[index][1] ** 2)
    some, rows = [batches.unshared()[largest]], sizes[largest][0]
    states, arguments = enter(some, rows).held_bytes

    def run() -> None:
        waiting = enter(some, rows)
        for group in groups:
            measured(waiting, group)

    tokens = sum(map(math.prod, sizes))
    return _Walk(timed(run) * len(sizes), Waiting(states * tokens // math.prod(sizes[largest]), arguments * len(sizes)))


def _seconds_of_passes(
    model: PreTrainedModel,
    groups: Sequence[Sequence[ValueMatrix]],
    batches: Mapping[str, LabelledBatches],
    settings: SubspaceSettings,
) -> float:
    longest = max(groups, key=lambda group: group[-1].key.layer)
    one_retain = timed(lambda: measure_moments(model, [batches["retain"][0]], longest, sources=settings.sources))
    one_forget = timed(lambda: measure_tokens(model, [batches["forget"][0]], longest))
    return (one_retain * len(batches["retain"]) + one_forget * len(batches["forget"])) * len(groups)


def _seconds_of_a_solve(model: PreTrainedModel, width: int, settings: SubspaceSettings) -> float:
    device = execution_device(model)
    if isinstance(settings.shrinkage, float) and settings.retain_rows:
        rows, shrinkage = torch.rand(width, settings.retain_rows, device=device), settings.shrinkage
        return timed(lambda: reduced_metric(rows, shrinkage)) * DECOMPOSITIONS
    identity = torch.eye(width, device=device)
    return timed(lambda: torch.linalg.cholesky_ex(identity)) * DECOMPOSITIONS
