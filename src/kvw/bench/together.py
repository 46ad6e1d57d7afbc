"""Several finished runs as one: those of one recipe with different seeds have a mean and an interval over seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kvw.bench.folders import run_folders
from kvw.bench.further import Cell, Row
from kvw.bench.record import Manifest
from kvw.bench.results import Results, read_results
from kvw.errors import UserError
from kvw.evaluation.metrics.intervals import seeds_interval
from kvw.measuring.fingerprint import digest
from kvw.strict import Strict

Found = TypeVar("Found")
FIGURES = ("relative_forgetting", "hypervolume", "distance_to_gold", "model_utility")
"""What :class:`kvw.bench.results.Results` has one number of for each model."""


class Comparison(Strict):
    """What one run found, or several of one recipe with different seeds."""

    title: str
    seeds: tuple[int, ...]
    runs: list[Results]
    """One for each seed."""
    rows: list[Row]
    """One for each task, with the score that stands for it. Of several seeds a cell is the mean of their means with
    Student's interval over them, and its items are those of all of them."""
    further: list[Row]
    """The other scores that the benchmark names, alike."""
    figures: dict[str, dict[str, Cell]]
    """By name (:data:`FIGURES`) and model; with an interval over seeds, if there are several."""

    @property
    def manifest(self) -> Manifest:
        """What the runs are about; of the first."""
        return self.runs[0].manifest

    @property
    def models(self) -> list[str]:
        """``vanilla``, every method, ``gold``."""
        return list(dict.fromkeys(name for row in self.rows for name in row.cells))

    @property
    def forgotten(self) -> list[str]:
        """The splits that are about no one but those to be forgotten."""
        return [split for split in self.runs[0].forgotten if all(split in run.forgotten for run in self.runs)]


def read_folders(places: Iterable[Path]) -> list[Path]:
    """The directories of all runs in these places, each once.

    Raises:
        UserError: No place is given, or one holds no run.
    """
    folders = {folder.resolve(): folder for place in places for folder in run_folders(place)}
    if not folders:
        raise UserError("Name at least one run directory.", do="make one with: kvw bench run RECIPE --out DIR")
    return list(folders.values())


def read_comparisons(places: Iterable[Path]) -> list[Comparison]:
    """Read finished runs; those that differ in nothing but the seed are put together.

    Args:
        places: Run directories, or directories with one for each setting or seed.

    Raises:
        UserError: There is no run, one is not finished, or two of one recipe have the same seed.
    """
    read = [(folder, read_results(folder)) for folder in read_folders(places)]
    return [_together(group) for group in grouped(read, lambda one: _recipe(one[1].manifest)).values()]


def alone(results: Results) -> Comparison:
    """One run."""
    return _comparison([seed_of(results.manifest)], [results])


def grouped(items: Iterable[Found], key: Callable[[Found], str]) -> dict[str, list[Found]]:
    """The items by their key, in the order in which keys are first seen."""
    groups: dict[str, list[Found]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def seed_of(manifest: Manifest) -> int:
    """The seed of a run."""
    return int(manifest.recipe.get("benchmark", {}).get("seed", 0))


def models_of(manifest: Manifest) -> dict[str, Any]:
    """The models of a run as its recipe names them, with ``{seed}`` for its seed; or how they are planted."""
    seed, recipe = seed_of(manifest), manifest.recipe
    named: Mapping[str, str] = recipe.get("models") or {}
    return recipe.get("plant") or {
        role: re.sub(rf"(?<!\d){seed}(?!\d)", "{seed}", name) for role, name in named.items()
    }


def settings_of(values: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Settings of a method without the seed, if that is the run's."""
    return {name: value for name, value in values.items() if name != "seed" or value != seed_of(manifest)}


def _recipe(manifest: Manifest) -> str:
    """What a run is about, without its seed."""
    recipe = dict(manifest.recipe)
    recipe["benchmark"] = {**recipe.get("benchmark", {}), "seed": None}
    recipe["models"], recipe["plant"] = models_of(manifest), None
    recipe["method"] = [settings_of(part, manifest) for part in recipe.get("method", ())]
    return digest(manifest.benchmark, manifest.setting, recipe)


def _together(group: Sequence[tuple[Path, Results]]) -> Comparison:
    seeds = [seed_of(results.manifest) for _, results in group]
    for (folder, _), seed in zip(group, seeds, strict=True):
        if seeds.count(seed) > 1:
            raise UserError(
                "Two runs of one recipe have the same seed.", found=f"seed {seed}, {folder}", do="name each run once"
            )
    return _comparison(seeds, [results for _, results in group])


def _comparison(seeds: Sequence[int], runs: Sequence[Results]) -> Comparison:
    return Comparison(
        title=runs[0].manifest.title,
        seeds=tuple(seeds),
        runs=list(runs),
        rows=_over_seeds([run.rows for run in runs]),
        further=_over_seeds([run.further for run in runs]),
        figures={name: found for name in FIGURES if (found := _figure([getattr(run, name) for run in runs]))},
    )


def _over_seeds(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows that all seeds have, with the models that all of them have."""
    if len(tables) == 1:
        return list(tables[0])
    found = [{(row.split, row.task, row.metric): row for row in table} for table in tables]
    rows = []
    for row in tables[0]:
        same = [table[key] for table in found if (key := (row.split, row.task, row.metric)) in table]
        if len(same) == len(tables):
            cells = {name: [one.cells[name] for one in same if name in one.cells] for name in row.cells}
            kept = {name: _mean(several) for name, several in cells.items() if len(several) == len(tables)}
            rows.append(row.model_copy(update={"cells": kept}))
    return rows


def _mean(cells: Sequence[Cell]) -> Cell:
    interval = seeds_interval([cell.mean for cell in cells])
    return Cell(mean=interval.mean, low=interval.low, high=interval.high, items=sum(cell.items for cell in cells))


def _figure(runs: Sequence[Mapping[str, float | None]]) -> dict[str, Cell]:
    """The models for which every seed has the number."""
    cells = {}
    for name in runs[0]:
        values = [value for run in runs if (value := run.get(name)) is not None]
        if len(values) == len(runs):
            interval = seeds_interval(values)
            cells[name] = Cell(mean=interval.mean, low=interval.low, high=interval.high, items=len(values))
    return cells
