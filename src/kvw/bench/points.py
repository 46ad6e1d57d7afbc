"""What every setting of every method forgets and keeps, as points of a plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kvw.bench.reach import forget_retain
from kvw.bench.record import RunFiles
from kvw.bench.results import Results, read_results
from kvw.bench.together import grouped, models_of, read_folders, settings_of
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest


@dataclass(frozen=True)
class Point:
    """A model that was asked.

    Args:
        label: ``vanilla``, ``gold``, or the method.
        settings: Of the method, without the seed of the run.
        forget: Mean score on the split to forget, between 0 and 1; small if much is forgotten.
        retain: Mean score on the split to retain.
        runs: Over how many runs (with different seeds) these are means.
    """

    label: str
    settings: Mapping[str, Any]
    forget: float
    retain: float
    runs: int = 1


@dataclass(frozen=True)
class Panel:
    """Points that can be compared: of one benchmark, setting and model.

    Args:
        title: Benchmark and setting.
        forget: Name of the split to forget.
        retain: Name of the split to retain.
        points: Of every model, in the order of the recipes.
    """

    title: str
    forget: str
    retain: str
    points: Sequence[Point]

    @property
    def methods(self) -> list[str]:
        """The labels that are methods."""
        return [label for label in dict.fromkeys(point.label for point in self.points) if label not in NO_METHODS]


NO_METHODS = ("vanilla", "gold")


def read_panels(places: Iterable[Path]) -> list[Panel]:
    """The points of finished runs; those of one benchmark, setting and model come into one panel.

    Runs with different seeds give the means over them. Half of the items takes part in the choice of settings, so no
    point is a reported result: they show how methods trade forgetting against keeping.

    Args:
        places: Run directories, or directories with one for each setting or seed.

    Raises:
        UserError: There is no run, or one is not finished.
    """
    read = [(folder, read_results(folder)) for folder in read_folders(places)]
    return [_panel(group) for group in grouped(read, lambda one: _subject(one[1])).values()]


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats: none forgets as much and keeps as much, and one of both more. By forgetting."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.forget, -one.retain)):
        if not best or point.retain > best[-1].retain:
            best.append(point)
    return best


def curves(panel: Panel, setting: str) -> dict[str, list[tuple[Any, Point]]]:
    """The points over the values of a setting, by method; by all other settings, too, if these differ.

    Args:
        panel: The points.
        setting: Its name. Methods that were not run with at least two values of it are left out.

    Raises:
        UserError: No method was run with two values of it; the message names the settings that have them.
    """
    found: dict[str, list[tuple[Any, Point]]] = {}
    for method in panel.methods:
        own = [point for point in panel.points if point.label == method and setting in point.settings]
        lines = grouped(own, lambda point: json.dumps(_others(point, setting), sort_keys=True, default=str))
        for points in lines.values():
            values = {str(point.settings[setting]) for point in points}
            if len(values) > 1:
                name = " ".join([method, *_differing(points[0], own, setting)])
                found[name] = sorted(
                    ((point.settings[setting], point) for point in points), key=lambda pair: _order(pair[0])
                )
    if not found:
        varied = sorted({name for method in panel.methods for name in _varied(panel, method)})
        raise UserError(
            f"No method was run with two values of '{setting}'.",
            found=f"settings with several values: {', '.join(varied) or 'none'}",
            do="name one of these" if varied else "give a setting of the recipe a list of values",
        )
    return found


def _panel(group: Sequence[tuple[Path, Results]]) -> Panel:
    manifest = group[0][1].manifest
    found: dict[str, list[Point]] = {}
    for folder, results in group:
        files = RunFiles(folder)
        for identifier in results.manifest.requests:
            record, items = files.record(identifier), files.items(identifier)
            if record is not None and items is not None:
                settings = settings_of(record.settings, results.manifest)
                point = Point(record.label, settings, *forget_retain(results.manifest, items))
                found.setdefault(json.dumps([record.label, settings], sort_keys=True, default=str), []).append(point)
    points = [
        Point(
            several[0].label,
            several[0].settings,
            fmean(one.forget for one in several),
            fmean(one.retain for one in several),
            len(several),
        )
        for several in found.values()
    ]
    choice = manifest.recipe["choice"]
    return Panel(f"{manifest.benchmark}, {manifest.setting}", choice["forget"], choice["retain"], points)


def _subject(results: Results) -> str:
    """What runs must have in common to be compared: the benchmark, its setting, what is asked, and the models."""
    manifest = results.manifest
    asked = [(task.split, task.task, task.metric) for task in manifest.tasks]
    return digest(manifest.benchmark, manifest.setting, asked, models_of(manifest))


def _others(point: Point, setting: str) -> dict[str, Any]:
    return {name: value for name, value in point.settings.items() if name != setting}


def _differing(point: Point, own: Sequence[Point], setting: str) -> list[str]:
    """The other settings of a point that not all points of the method share."""
    return [
        f"{name}={value}"
        for name, value in _others(point, setting).items()
        if any(other.settings.get(name) != value for other in own)
    ]


def _varied(panel: Panel, method: str) -> set[str]:
    own = [point.settings for point in panel.points if point.label == method]
    names = {name for settings in own for name in settings}
    return {name for name in names if len({str(one[name]) for one in own if name in one}) > 1}


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then all else by its text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))
