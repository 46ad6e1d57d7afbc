"""What a benchmark run found, from its records: settings chosen on one half, numbers of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kvw.bench.further import Row, further_rows, item_value, task_row, utilities
from kvw.bench.reach import hypervolume, reach
from kvw.bench.record import Manifest, ModelRecord, PlantingPart, RunFiles
from kvw.bench.scores import ItemScore
from kvw.errors import UserError
from kvw.evaluation.metrics import (
    OutcomeCounts,
    forget_quality,
    relative_forgetting,
)
from kvw.strict import Strict


class Choice(Strict):
    """The settings of a method that one half of the items has chosen."""

    method: str
    identifier: str
    """Name of the record."""
    chosen_on: int
    """The half (0 or 1) that the choice was made on; numbers are of the other."""
    settings: dict[str, Any]
    tried: int
    kept: float
    """Share of vanilla's retain score on the half that the choice was made on."""
    kept_enough: bool
    """Whether any of the settings kept as much as the recipe asks for."""


class Results(Strict):
    """Everything the tables show."""

    manifest: Manifest
    rows: list[Row]
    """One for each task, with the score that stands for it."""
    further: list[Row]
    """The other scores that the benchmark names."""
    forgotten: list[str]
    """The splits that are about no one but those to be forgotten."""
    choices: list[Choice]
    outcomes: dict[str, dict[str, int]]
    """How all items of the forget split ended, by model."""
    relative_forgetting: dict[str, float | None]
    """The share of vanilla's score on the forget split that is gone, by method."""
    hypervolume: dict[str, float]
    """The area under what the settings of a method forget and keep (:mod:`kvw.bench.reach`), by method with several
    settings."""
    distance_to_gold: dict[str, float]
    """Absolute difference from gold's mean, averaged over the tasks of the forget split, by model; empty without
    gold."""
    forget_quality: dict[str, float]
    """p-value of the Kolmogorov-Smirnov test of forget truth ratios against gold's, by model, where there are any."""
    model_utility: dict[str, float]
    """TOFU's harmonic mean over three sets, by model, where the benchmark has them."""
    planted: dict[str, PlantingPart]
    """``vanilla`` and ``gold``, if the run has made them."""


def read_results(folder: Path) -> Results:
    """Compute the results of a run from its files.

    Raises:
        UserError: There is no run, or a record is missing; the message says how many.
    """
    files = RunFiles(folder)
    manifest = files.manifest()
    if manifest is None:
        raise UserError(f"There is no benchmark run in {folder}.", do="make one with: kvw bench run RECIPE --out DIR")
    read = {identifier: (files.record(identifier), files.items(identifier)) for identifier in manifest.requests}
    finished = [record for record, items in read.values() if record is not None and items is not None]
    if len(finished) < len(read):
        raise _unfinished(folder, f"{len(finished)} of {len(read)} models asked")
    results = summarise(manifest, finished, {identifier: items or [] for identifier, (_, items) in read.items()})
    chosen = {choice.identifier for choice in results.choices}
    if waiting := [record for record in finished if record.identifier in chosen and record.only_screened]:
        raise _unfinished(folder, f"{len(waiting)} of {len(chosen)} chosen models not asked everything yet")
    return results


def _unfinished(folder: Path, found: str) -> UserError:
    return UserError(
        f"The run in {folder} is not finished.", found=found, do="go on with: kvw bench run RECIPE --out DIR"
    )


def summarise(manifest: Manifest, records: Sequence[ModelRecord], items: Mapping[str, Sequence[ItemScore]]) -> Results:
    """Choose settings, and put the numbers together.

    Args:
        manifest: What the run is about.
        records: Every model that was asked.
        items: Their items, by the identifier of the record.
    """
    choices, reported = choose(manifest, records, items)
    people = {1 - half for half in chosen_halves(manifest)}

    def same_people(label: str) -> list[ItemScore]:
        scores = items[_one(records, label).identifier]
        return [score for score in scores if manifest.folds[score.subject] in people]

    models = {"vanilla": same_people("vanilla")} | reported
    if any(record.label == "gold" for record in records):
        models["gold"] = same_people("gold")
    rows = [task_row(task, task.metric, models) for task in manifest.tasks]
    forget = [row for row in rows if row.split == _split(manifest, "forget")]
    return Results(
        manifest=manifest,
        rows=rows,
        further=further_rows(manifest, models),
        forgotten=_forgotten_splits(manifest, models["vanilla"]),
        choices=choices,
        outcomes={
            name: vars(OutcomeCounts.of(score.outcome for score in _of(manifest, found)))
            for name, found in models.items()
        },
        relative_forgetting={name: _forgotten(forget, name) for name in models if name not in ("vanilla", "gold")},
        hypervolume={
            name: hypervolume(points.values())
            for name, points in reach(manifest, records, items).items()
            if len(points) > 1
        },
        distance_to_gold=_distances(forget, models) if "gold" in models else {},
        forget_quality=_quality(manifest, models) if "gold" in models else {},
        model_utility=utilities(manifest, models),
        planted={
            record.label: record.planting
            for record in records
            if record.label in ("vanilla", "gold") and record.planting is not None
        },
    )


def chosen_halves(manifest: Manifest) -> tuple[int, ...]:
    """The halves of the people that settings are chosen on, each in turn; methods are reported on the other one."""
    return (0, 1) if manifest.recipe["choice"]["folds"] == "both" else (0,)


def choose(
    manifest: Manifest, records: Sequence[ModelRecord], items: Mapping[str, Sequence[ItemScore]]
) -> tuple[list[Choice], dict[str, list[ItemScore]]]:
    """Choose settings on one half at a time.

    Args:
        manifest: What the run is about.
        records: Vanilla and every method with all its settings.
        items: Their items, by the identifier of the record.

    Returns:
        The chosen settings, and for each method the items of the halves that took no part in the choice.
    """
    choices: list[Choice] = []
    reported: dict[str, list[ItemScore]] = {}
    for method in dict.fromkeys(record.label for record in records if record.label not in ("vanilla", "gold")):
        for half in chosen_halves(manifest):
            best, choice = _best(manifest, records, items, method, half)
            choices.append(choice)
            others = [score for score in items[best.identifier] if manifest.folds[score.subject] != half]
            reported.setdefault(method, []).extend(others)
    return choices, reported


def _best(
    manifest: Manifest,
    records: Sequence[ModelRecord],
    items: Mapping[str, Sequence[ItemScore]],
    method: str,
    half: int,
) -> tuple[ModelRecord, Choice]:
    """The settings of a method that forget most and keep enough, by the items of one half."""
    vanilla, tried = _one(records, "vanilla"), [record for record in records if record.label == method]

    def mean(record: ModelRecord, part: str) -> float:
        return _half_mean(manifest, items[record.identifier], _split(manifest, part), half)

    whole = mean(vanilla, "retain") or 1.0
    kept = {record.identifier: mean(record, "retain") / whole for record in tried}
    enough = [record for record in tried if kept[record.identifier] >= manifest.recipe["choice"]["keep"]]
    left = {record.identifier: mean(record, "forget") for record in enough}
    if enough:
        best = min(enough, key=lambda record: (left[record.identifier], -kept[record.identifier]))
    else:
        best = max(tried, key=lambda record: kept[record.identifier])
    choice = Choice(
        method=method,
        identifier=best.identifier,
        chosen_on=half,
        settings=best.settings,
        tried=len(tried),
        kept=kept[best.identifier],
        kept_enough=bool(enough),
    )
    return best, choice


def _half_mean(manifest: Manifest, scores: Sequence[ItemScore], split: str, half: int) -> float:
    """Mean over the items of a split whose subjects are in one half; 0 if there are none."""
    metrics = {(task.split, task.task): task.metric for task in manifest.tasks}
    tasks = manifest.recipe["choice"]["tasks"] or {task.task for task in manifest.tasks}
    values = [
        item_value(score, metrics[score.split, score.task])
        for score in scores
        if score.split == split and score.task in tasks and manifest.folds[score.subject] == half
    ]
    return fmean(values) if values else 0.0


def _forgotten_splits(manifest: Manifest, scores: Sequence[ItemScore]) -> list[str]:
    subjects: dict[str, set[str]] = {}
    for score in scores:
        subjects.setdefault(score.split, set()).add(score.subject)
    forgotten = subjects.get(_split(manifest, "forget"), set())
    return [split for split, found in subjects.items() if found <= forgotten]


def _forgotten(forget: Sequence[Row], name: str) -> float | None:
    rows = [row for row in forget if name in row.cells]
    if not rows:
        return None
    return relative_forgetting(
        fmean(row.cells["vanilla"].mean for row in rows), fmean(row.cells[name].mean for row in rows)
    )


def _distances(forget: Sequence[Row], models: Mapping[str, Sequence[ItemScore]]) -> dict[str, float]:
    return {
        name: fmean(abs(row.cells[name].mean - row.cells["gold"].mean) for row in forget)
        for name in models
        if name != "gold" and forget and all(name in row.cells for row in forget)
    }


def _quality(manifest: Manifest, models: Mapping[str, Sequence[ItemScore]]) -> dict[str, float]:
    ratios = {
        name: [score.scores["truth_ratio"] for score in _of(manifest, scores) if "truth_ratio" in score.scores]
        for name, scores in models.items()
    }
    if not ratios["gold"]:
        return {}
    return {
        name: forget_quality(found, ratios["gold"]).p_value
        for name, found in ratios.items()
        if name != "gold" and found
    }


def _of(manifest: Manifest, scores: Sequence[ItemScore]) -> list[ItemScore]:
    """The scores of the forget split."""
    return [score for score in scores if score.split == _split(manifest, "forget")]


def _split(manifest: Manifest, part: str) -> str:
    return str(manifest.recipe["choice"][part])


def _one(records: Sequence[ModelRecord], label: str) -> ModelRecord:
    return next(record for record in records if record.label == label)
