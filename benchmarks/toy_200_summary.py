"""Several benchmark runs of one recipe side by side: means over runs, hypervolumes, and a picture, from records alone.

Made for the seeds of the toy benchmark::

    kvw bench run recipes/toy-200.toml --seed 0 --out bench-run-0     # and 1, 2
    python benchmarks/toy_200_summary.py bench-run-0/forget10 bench-run-1/forget10 bench-run-2/forget10

The hypervolume of a method is the area that its settings dominate, forgetting (1 - forget score / vanilla's) against
keeping (retain score / vanilla's), both by the tasks that settings are chosen by and at most 1: 1 is a setting that
forgets everything and costs nothing. It is about what a method *can* reach; the table is about what is chosen.

usage: python benchmarks/toy_200_summary.py RUN [RUN ...] [--plot FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from kvw.bench.further import item_value
from kvw.bench.record import Manifest, RunFiles
from kvw.bench.results import Results, read_results
from kvw.bench.scores import ItemScore

Point = tuple[float, float]
"""Share forgotten and share kept of vanilla's score."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of one recipe and one setting each")
    parser.add_argument("--plot", type=Path, help="also draw every setting of every method (PNG)")
    arguments = parser.parse_args()
    found = [read_results(folder) for folder in arguments.runs]
    print(_table(found))
    fronts = [_points(folder) for folder in arguments.runs]
    print("\n| method | hypervolume |", "|---|---:|", sep="\n")
    for method in fronts[0]:
        print(f"| {method} | {_spread([hypervolume(points[method]) for points in fronts])} |")
    if arguments.plot:
        _plot(fronts[0], arguments.plot)


def _table(runs: Sequence[Results]) -> str:
    names = list(runs[0].rows[0].cells)
    names.remove("vanilla")
    names = ["vanilla", *(name for name in names if name != "gold"), "gold"]
    lines = ["| split | task | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
    for place, row in enumerate(runs[0].rows):
        cells = [_spread([run.rows[place].cells[name].mean for run in runs]) for name in names]
        lines.append(f"| {row.split} | {row.task} | " + " | ".join(cells) + " |")
    distances = [_spread([run.distance_to_gold[name] for run in runs]) if name != "gold" else "" for name in names]
    return "\n".join([*lines, "| forget | distance to gold | " + " | ".join(distances) + " |"])


def _spread(values: Sequence[float]) -> str:
    """A mean, and in brackets the smallest and the largest of several runs."""
    return f"{fmean(values):.3f}" + (f" [{min(values):.2f}, {max(values):.2f}]" if len(values) > 1 else "")


def _points(folder: Path) -> dict[str, list[Point]]:
    """What every setting of every method forgets and keeps."""
    files = RunFiles(folder)
    manifest = files.manifest()
    if manifest is None:
        raise SystemExit(f"there is no run in {folder}")
    scores = {name: _means(manifest, files.items(name) or []) for name in manifest.requests}
    records = {name: files.record(name) for name in manifest.requests}
    vanilla = next(scores[name] for name, record in records.items() if record and record.label == "vanilla")
    points: dict[str, list[Point]] = {}
    for name, record in records.items():
        if record is not None and record.label not in ("vanilla", "gold"):
            forget, retain = (one / whole for one, whole in zip(scores[name], vanilla, strict=True))
            points.setdefault(record.label, []).append((1 - min(1.0, forget), min(1.0, retain)))
    return points


def _means(manifest: Manifest, items: Iterable[ItemScore]) -> Point:
    """Means over the tasks that settings are chosen by, of the split to forget and of the one to retain."""
    choice = manifest.recipe["choice"]
    metrics = {(task.split, task.task): task.metric for task in manifest.tasks}
    tasks = choice["tasks"] or {task.task for task in manifest.tasks}
    items = [item for item in items if item.task in tasks]
    forget, retain = (
        fmean(item_value(item, metrics[item.split, item.task]) for item in items if item.split == choice[part])
        for part in ("forget", "retain")
    )
    return forget, retain


def hypervolume(points: Sequence[Point]) -> float:
    """The area of all (x, y) with 0 <= x <= X and 0 <= y <= Y for one of the points (X, Y)."""
    area, reached = 0.0, 0.0
    for x, y in sorted(points, reverse=True, key=lambda point: (point[1], point[0])):
        area += max(0.0, x - reached) * y
        reached = max(reached, x)
    return area


def _plot(points: dict[str, list[Point]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for place, (method, found) in enumerate(points.items()):
        xs, ys = zip(*sorted(found), strict=True)
        ours = method in ("kvw", "subspace")
        axes.plot(
            xs, ys, marker="osD^vP*X<>hp"[place % 12], label=method, lw=2 if ours else 0.7, alpha=1 if ours else 0.6
        )
    axes.set(xlabel="forgotten (share of vanilla's answers)", ylabel="kept of the retain set", xlim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
