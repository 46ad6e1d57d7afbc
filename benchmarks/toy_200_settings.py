"""Which five settings of a method reach furthest, from runs of candidates in worlds that are not reported.

A method's five settings decide what it can reach, so they are picked in one way: of all sets of five candidates the one
with the largest mean hypervolume (:mod:`kvw.bench.reach`) over the runs::

    kvw bench run recipes/toy-200-candidates.toml --seed 0 --out bench-runs/candidates-0     # and 1
    python benchmarks/toy_200_settings.py bench-runs/candidates-0 bench-runs/candidates-1

usage: python benchmarks/toy_200_settings.py RUN [RUN ...] [--count 5]
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from statistics import fmean

from kvw.bench.reach import Point, hypervolume, reach
from kvw.bench.record import RunFiles
from kvw.bench.results import read_results

Settings = tuple[tuple[str, str], ...]
"""Names and values."""


def main() -> None:
    """Print the settings that are picked for each method, and what they reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of one recipe in several worlds")
    parser.add_argument("--count", type=int, default=5, help="settings of each method")
    arguments = parser.parse_args()
    runs = [candidates(folder) for folder in arguments.runs]
    for method in runs[0]:
        best, areas = pick([run[method] for run in runs], arguments.count)
        print(f"{method}: hypervolume " + ", ".join(f"{area:.3f}" for area in areas))
        for settings in best:
            reached = "; ".join("forgets {:.2f}, keeps {:.2f}".format(*run[method][settings]) for run in runs)
            print("    " + ", ".join(f"{name} = {value}" for name, value in settings) + f": {reached}")


def candidates(folder: Path) -> dict[str, dict[Settings, Point]]:
    """What every candidate of every method forgets and keeps in one world."""
    files, manifest = RunFiles(folder), read_results(folder).manifest
    records = [record for name in manifest.requests if (record := files.record(name)) is not None]
    items = {record.identifier: files.items(record.identifier) or [] for record in records}
    settings = {record.identifier: record.settings for record in records}
    return {
        method: {
            tuple((name, str(value)) for name, value in settings[identifier].items()): point
            for identifier, point in points.items()
        }
        for method, points in reach(manifest, records, items).items()
    }


def pick(worlds: list[dict[Settings, Point]], count: int) -> tuple[tuple[Settings, ...], list[float]]:
    """The ``count`` settings with the largest mean hypervolume, and it in each world."""

    def areas(chosen: tuple[Settings, ...]) -> list[float]:
        return [hypervolume([world[settings] for settings in chosen]) for world in worlds]

    best = max(combinations(worlds[0], count), key=lambda chosen: fmean(areas(chosen)))
    return best, areas(best)


if __name__ == "__main__":
    main()
