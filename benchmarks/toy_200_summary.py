"""What several benchmark runs found together, from their records alone: one table over all worlds, targets, a picture.

Made for the worlds of the toy benchmark::

    kvw bench run recipes/toy-200.toml --seed 0 --out bench-run-0     # and 1, 2
    python benchmarks/toy_200_summary.py bench-run-0/forget10 bench-run-1/forget10 bench-run-2/forget10

Runs of one world (of several recipes) stand for one run with all their methods; worlds without a gold model have no say
in the columns about it. Cells are means over the items of all worlds. Intervals are bootstrap intervals over people;
those of hypervolumes and distances are the smallest and the largest world.

Hypervolumes (:mod:`kvw.bench.reach`) are about what a method *can* reach with its settings; the other columns are about
what is chosen.

usage: python benchmarks/toy_200_summary.py RUN [RUN ...] [--plot FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from kvw.bench.further import item_value
from kvw.bench.reach import Point, hypervolume, reach
from kvw.bench.record import Manifest, RunFiles
from kvw.bench.results import choose, read_results
from kvw.bench.scores import ItemScore
from kvw.evaluation.metrics import mean_interval

ASKED = ("generation", "generation text", "cloze", "cloze text")
"""The tasks whose answers are compared by exact match."""


@dataclass(frozen=True)
class Run:
    """One run: the items by which every model is reported, and the points that its settings reach.

    Args:
        manifest: What it is about.
        models: Items by model: ``vanilla``, each method as chosen, ``gold``.
        points: What every setting of every method forgets and keeps.
        to_gold: Distance to the gold model by method.
    """

    manifest: Manifest
    models: dict[str, list[ItemScore]]
    points: dict[str, list[Point]]
    to_gold: dict[str, float]

    @property
    def world(self) -> int:
        """The seed of its people."""
        return int(self.manifest.recipe["benchmark"]["seed"])

    def values(self, model: str, places: Sequence[tuple[str, str]], metric: str = "") -> tuple[list[float], list[str]]:
        """Scores of a model in some tasks (split, task), and whom each is about; without a metric, each task's own."""
        metrics = {(task.split, task.task): task.metric for task in self.manifest.tasks}
        items = [item for item in self.models[model] if (item.split, item.task) in places]
        return [item_value(item, metric or metrics[item.split, item.task]) for item in items], [
            f"{self.world} {item.subject}" for item in items
        ]

    def gap(self, model: str, metric: str) -> float:
        """Mean over the tasks of the forget split of the distance of a metric's mean to the gold model's."""
        tasks = [("forget", task) for task in ASKED]
        means = [[fmean(self.values(name, [task], metric)[0]) for task in tasks] for name in (model, "gold")]
        return fmean(abs(one - other) for one, other in zip(*means, strict=True))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories with the same tasks and share to forget")
    parser.add_argument("--plot", type=Path, help="also draw every setting of every method (PNG)")
    arguments = parser.parse_args()
    runs = [read_run(folder) for folder in arguments.runs]
    worlds = sorted({run.world for run in runs})
    print(f"Worlds: {', '.join(map(str, worlds))}.\n")
    methods = ordered(runs)
    print(task_table(runs, methods))
    print()
    print(target_table(runs, methods))
    if arguments.plot:
        plot([run for run in runs if run.world == worlds[0]], arguments.plot)


def read_run(folder: Path) -> Run:
    """Read a finished run."""
    files, results = RunFiles(folder), read_results(folder)
    manifest = results.manifest
    records = [record for name in manifest.requests if (record := files.record(name)) is not None]
    items = {record.identifier: files.items(record.identifier) or [] for record in records}
    _, models = choose(manifest, records, items)
    for record in records:
        if record.label in ("vanilla", "gold"):
            models[record.label] = items[record.identifier]
    points = {method: list(found.values()) for method, found in reach(manifest, records, items).items()}
    return Run(manifest, models, points, results.distance_to_gold)


def ordered(runs: Sequence[Run]) -> list[str]:
    """Vanilla, every method that all worlds have, gold; as the recipes list them."""
    worlds = {run.world for run in runs}
    names = dict.fromkeys(name for run in runs for name in run.models if name not in ("vanilla", "gold"))
    everywhere = [name for name in names if {run.world for run in runs if name in run.models} == worlds]
    return ["vanilla", *everywhere, *(["gold"] if any("gold" in run.models for run in runs) else [])]


def of_all_worlds(runs: Sequence[Run], model: str, places: Sequence[tuple[str, str]]) -> tuple[list[float], list[str]]:
    """Scores of a model in some tasks over all worlds that have it, and whom each is about; each world once."""
    scores: list[float] = []
    people: list[str] = []
    for world in sorted({run.world for run in runs if model in run.models}):
        run = next(run for run in runs if run.world == world and model in run.models)
        values, subjects = run.values(model, places)
        scores += values
        people += subjects
    return scores, people


def task_table(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """A row for each method, a column for each task: means."""
    tasks = [(task.split, task.task) for task in runs[0].manifest.tasks]
    heads = [" ".join(filter(None, (split, task.replace("generation", "").strip()))) for split, task in tasks]
    heads = [head.replace("classification", "choice").replace("general shapes", "general") for head in heads]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for method in methods:
        cells = [f"{fmean(of_all_worlds(runs, method, [place])[0]):.2f}" for place in tasks]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def target_table(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """What is left of vanilla's answers, by part, with intervals; distance to gold; hypervolume."""
    parts = [
        ("forget", [("forget", task) for task in ASKED] + [("test", task) for task in ASKED]),
        ("retain", [("retain", task) for task in ASKED]),
        ("unused", [("unused", task) for task in ASKED]),
        ("general", [("general", "shapes")]),
    ]
    heads = [*(name for name, _ in parts), "to gold", "probability to gold", "extraction to gold", "hypervolume"]
    lines = ["| share of vanilla's | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for method in methods[1:]:
        having = [run for run in runs if method in run.models]
        worlds = {run.world for run in having}
        cells = [share([run for run in runs if run.world in worlds], method, places) for _, places in parts]
        distances = [run.to_gold[method] for run in having if method in run.to_gold]
        areas = [hypervolume(run.points[method]) for run in runs if method in run.points]
        cells.append(spread(distances))
        cells += [
            spread([run.gap(method, metric) for run in having if "gold" in run.models])
            for metric in ("probability", "extraction_strength")
        ]
        cells.append(spread(areas))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def share(runs: Sequence[Run], method: str, places: Sequence[tuple[str, str]]) -> str:
    """Mean as a share of vanilla's mean, with the interval of the method's mean in the same unit."""
    whole = fmean(of_all_worlds(runs, "vanilla", places)[0])
    found = mean_interval(*of_all_worlds(runs, method, places))
    low, high = ((one or 0.0) / whole for one in (found.low, found.high))
    return f"{found.mean / whole:.2f} [{low:.2f}, {high:.2f}]"


def spread(values: Sequence[float]) -> str:
    """A mean, and in brackets the smallest and the largest world; nothing if there are none."""
    if not values:
        return ""
    return f"{fmean(values):.2f}" + (f" [{min(values):.2f}, {max(values):.2f}]" if len(values) > 1 else "")


def plot(runs: Sequence[Run], path: Path) -> None:
    """Every setting of every method in one world."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    points = {method: found for run in runs for method, found in run.points.items()}
    for place, (method, found) in enumerate(points.items()):
        xs, ys = zip(*sorted(found), strict=True)
        ours = method in ("kvw", "subspace")
        axes.plot(
            xs, ys, marker="osD^vP*X<>hp"[place % 12], label=method, lw=2 if ours else 0.7, alpha=1 if ours else 0.6
        )
    axes.set(xlabel="forgotten (share of vanilla's answers)", ylabel="kept of the retain set", xlim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2, loc="lower left")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
