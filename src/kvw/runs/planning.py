"""What methods say of themselves in a dry run: how long they would take, and what they would hold in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from pydantic import BaseModel, ConfigDict

from kvw.data import Prepared
from kvw.measuring.engine import measure
from kvw.measuring.examples import measure_examples
from kvw.measuring.fitting import token_budget
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moments import measure_moments, measure_tokens
from kvw.methods.settings import KvwSettings
from kvw.methods.subspace.labels import EverySoManyth
from kvw.methods.subspace.memory import MemoryPlan, memory_plan
from kvw.methods.subspace.method import matrices_in, passes
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.families import find_value_matrices, select_layers
from kvw.models.placement import execution_device
from kvw.runs.loaded import Loaded
from kvw.runs.unlearning import ForgetBatches, labels_of

DECOMPOSITIONS = 4
"""A Cholesky factor and two triangular solves of many columns, in units of the factor, generously."""


class MethodPlan(BaseModel):
    """What a method would take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: dict[str, float]
    """By stage; upper bounds, since the largest batch was timed."""
    memory: MemoryPlan | None = None


def kvw_plan(
    loaded: Loaded, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: KvwSettings
) -> MethodPlan:
    """Time one step on the longest forget example, and the largest batch of the retain set."""
    model, processor = loaded.model, loaded.processor
    matrices = select_layers(find_value_matrices(model), settings.layers)
    layers = (matrices[0].key.layer, matrices[-1].key.layer)
    step = [ForgetBatches([max(forget, key=lambda item: item.length)], processor)[0]]
    one_step = timed(lambda: measure(model, step, layers=layers, positions=settings.positions))
    seconds = {"weakening": one_step * len(forget) * settings.epochs}
    if retain:
        some = largest_batch(retain, token_budget(execution_device(model)))
        one_batch = timed(lambda: measure_examples(model, processor, some, layers=loaded.all_layers))
        seconds["measuring the retain set"] = one_batch / len(some) * len(retain)
    return MethodPlan(seconds=seconds)


def subspace_plan(
    loaded: Loaded, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: SubspaceSettings
) -> MethodPlan:
    """Time the largest batch of both sets and one factorisation, and count bytes from shapes."""
    model = loaded.model
    groups = passes(matrices_in(model, settings), settings)
    sets = {"forget": forget, "retain": retain}
    batches = {name: LabelledBatches(items, loaded.processor, model) for name, items in sets.items()}
    longest = max(groups, key=lambda group: group[-1].key.layer)
    one_retain = timed(lambda: measure_moments(model, [batches["retain"][0]], longest, sources=settings.sources))
    one_forget = timed(lambda: measure_tokens(model, [batches["forget"][0]], longest))
    widest = max((matrix for group in groups for matrix in group), key=lambda matrix: matrix.width)
    identity = torch.eye(widest.width, device=execution_device(model))
    one_solve = timed(lambda: torch.linalg.cholesky_ex(identity)) * DECOMPOSITIONS
    solves = one_solve * sum(map(len, groups))
    running = (one_retain * len(batches["retain"]) + one_forget * len(batches["forget"])) * len(groups)

    ordered = [retain[place] for place in batches["retain"].order]
    keep = EverySoManyth(labels_of([item.example for item in ordered]), settings.null_every)
    null = sum(len(item.answer_ids) for row, item in enumerate(ordered) if keep(row))
    memory = memory_plan(
        groups,
        folds=3 if isinstance(settings.shrinkage, str) else 1,
        forget=sum(len(item.answer_ids) for item in forget),
        null=null,
        token_bytes=model.dtype.itemsize,
        sequential=settings.schedule == "sequential",
    )
    return MethodPlan(seconds={"weakening": running + solves}, memory=memory)


def largest_batch(prepared: Sequence[Prepared], budget: int) -> list[Prepared]:
    """The longest examples, with equal image counts, that a budget of padded tokens takes."""
    longest = max(prepared, key=lambda item: item.length)
    alike = sorted(
        (item for item in prepared if item.image_count == longest.image_count),
        key=lambda item: item.length,
        reverse=True,
    )
    return alike[: max(1, budget // longest.length)]


def timed(work: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
