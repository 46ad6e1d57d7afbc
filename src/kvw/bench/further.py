"""What a benchmark's authors report besides one score for each task: further scores, pairs of modalities, utility."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from kvw.bench.record import Manifest, TaskPart
from kvw.bench.scores import COMPUTED, PAIRED, ItemScore, paired_score
from kvw.evaluation.metrics import (
    SetUtility,
    forget_truth_ratio,
    mean_interval,
    model_utility,
    retain_truth_ratio,
)
from kvw.strict import Strict

UTILITY_SETS = {
    "TOFU": ("retain/question", "real_authors/question", "world_facts/question"),
    "CLEAR": ("retain/caption", "real_faces/face", "real_world/question"),
}
"""By benchmark: what is kept, what is known of others, what is known of the world."""


class Cell(Strict):
    """A mean over items, with an interval that takes all items of one subject together."""

    mean: float
    low: float | None
    high: float | None
    """Ends of the 95 % bootstrap interval; None where there are too few subjects."""
    items: int

    @classmethod
    def of(cls, values: Sequence[float], subjects: Sequence[str]) -> Cell:
        """The mean of at least one value; each is about a subject."""
        interval = mean_interval(values, subjects)
        return cls(mean=interval.mean, low=interval.low, high=interval.high, items=len(values))


class Row(Strict):
    """One score of one task of one split."""

    split: str
    task: str
    modality: str
    metric: str
    cells: dict[str, Cell]
    """By model: ``vanilla``, each method with its chosen settings, ``gold``."""


def task_row(task: TaskPart, metric: str, models: Mapping[str, Sequence[ItemScore]]) -> Row:
    """One score of a task, for every model that was asked any of its items.

    Args:
        task: The task.
        metric: Name of the score.
        models: The items of each model.
    """
    cells = {}
    for name, scores in models.items():
        own = [score for score in scores if (score.split, score.task) == (task.split, task.task)]
        if own:
            cells[name] = Cell.of([item_value(score, metric) for score in own], [score.subject for score in own])
    return Row(split=task.split, task=task.task, modality=task.modality, metric=metric, cells=cells)


def item_value(score: ItemScore, metric: str) -> float:
    """What a mean is taken of; a failed item counts as 0, never as absent."""
    value = score.scores.get(metric, 0.0)
    if metric != "truth_ratio" or metric not in score.scores:
        return value
    return forget_truth_ratio(value) if score.split.startswith("forget") else retain_truth_ratio(value)


def further_rows(manifest: Manifest, models: Mapping[str, Sequence[ItemScore]]) -> list[Row]:
    """The other scores that the benchmark names: of tasks, and of tasks in both modalities.

    Args:
        manifest: What the run is about.
        models: The items of each model, among them ``vanilla``.
    """
    rows = []
    for task in manifest.tasks:
        measured = {name for score in models["vanilla"] if _of(score, task) for name in score.scores}
        named = [COMPUTED[name] for name in task.named if name in COMPUTED]
        rows += [
            task_row(task, metric, models) for metric in dict.fromkeys(named) if metric in measured - {task.metric}
        ]
    for task in manifest.tasks:
        other = f"{task.task.removesuffix('_image')}_text"
        if task.modality == "image" and any((one.split, one.task) == (task.split, other) for one in manifest.tasks):
            names = [name for name in task.named if name in PAIRED]
            # One half of these metrics is about what is to be gone, the other about what is to stay.
            wanted = "f" if task.split == manifest.recipe["choice"]["forget"] else "r"
            rows += [_paired(task, other, name, models) for name in names if name.endswith(wanted)]
    return [row for row in rows if row.cells]


def utilities(manifest: Manifest, models: Mapping[str, Sequence[ItemScore]]) -> dict[str, float]:
    """TOFU's model utility of each model; empty where the benchmark has no such sets, or not all were asked."""
    places = UTILITY_SETS.get(manifest.benchmark, ())
    by_model = {}
    for name, scores in models.items():
        sets = [[score for score in scores if f"{score.split}/{score.task}" == place] for place in places]
        if sets and all(any("truth_ratio" in score.scores for score in one) for one in sets):
            retain, others, world = (_utility(one, normalised=place > 0) for place, one in enumerate(sets))
            by_model[name] = model_utility(retain, others, world)
    return by_model


def _utility(scores: Sequence[ItemScore], *, normalised: bool) -> SetUtility:
    """The three means of one set; beside alternatives a probability is divided by the sum over them."""

    def mean(metric: str) -> float:
        return fmean(item_value(score, metric) for score in scores)

    return SetUtility(
        probability=mean("normalised_probability" if normalised else "probability"),
        rouge_l_recall=mean("rouge_l_recall"),
        truth_ratio=mean("truth_ratio"),
    )


def _paired(task: TaskPart, other: str, name: str, models: Mapping[str, Sequence[ItemScore]]) -> Row:
    metric, (_, compute) = paired_score(name, task.named), PAIRED[name]
    both: Callable[[Sequence[Any], Sequence[Any]], float] = compute
    cells = {}
    for model, scores in models.items():
        told = {score.pair: score for score in scores if (score.split, score.task) == (task.split, other)}
        shown = [score for score in scores if _of(score, task) and score.pair in told]
        if shown:
            values = [both([item_value(score, metric)], [item_value(told[score.pair], metric)]) for score in shown]
            cells[model] = Cell.of(values, [score.subject for score in shown])
    return Row(split=task.split, task=task.task.removesuffix("_image"), modality="both", metric=name, cells=cells)


def _of(score: ItemScore, task: TaskPart) -> bool:
    return (score.split, score.task) == (task.split, task.task)
