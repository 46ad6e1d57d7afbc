"""What several benchmark runs found together, from their records alone: tables over all worlds, and a picture.

Made for the worlds of the toy benchmark::

    kvw bench run recipes/toy-200.toml --seed 2 --out bench-runs/main-2     # and 3, 4
    python benchmarks/toy_200_summary.py bench-runs/main-[234]/forget10

Runs of one world (of several recipes) stand for one run with all their methods; worlds without a gold model have no say
in what is about it. Cells are means over the items of all worlds. Intervals are bootstrap intervals over people; those
of hypervolumes and distances are the smallest and the largest world.

Hypervolumes (:mod:`kvw.bench.reach`) are about what a method *can* reach with its settings; the other columns are about
what is chosen.

usage: python benchmarks/toy_200_summary.py RUN [RUN ...] [--plot FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from kvw.bench.further import item_value
from kvw.bench.reach import Point, hypervolume, reach
from kvw.bench.record import Manifest, RunFiles
from kvw.bench.results import choose, read_results
from kvw.bench.scores import ItemScore
from kvw.evaluation.metrics import forget_quality, mean_interval

Places = Sequence[tuple[str, str]]
"""Tasks by split and name."""

ASKED = ("generation", "generation text", "cloze", "cloze text")
"""The tasks whose answers are compared by exact match."""
PARTS: dict[str, Places] = {
    "forget": [(split, task) for split in ("forget", "test") for task in ASKED],
    "retain": [("retain", task) for task in ASKED],
    "unused": [("unused", task) for task in ASKED],
    "general": [("general", "shapes")],
}
FORGET_SPLITS: dict[str, Places] = {
    "forget": [("forget", "generation")],
    "forget text": [("forget", "generation text")],
    "new photos": [("test", "generation")],
    "new phrasings": [("test", "generation text")],
}
"""The forget splits that are to be answered no better than by the gold model."""
TO_KEEP = {"retain": 0.99, "unused": 0.97, "general": 0.99}
"""Shares of vanilla's answers that are to stay."""
TO_GOLD = {
    "exact match": "",
    "probability": "probability",
    "truth ratio": "truth_ratio",
    "extraction strength": "extraction_strength",
}
"""Metrics whose distance to the gold model is reported; without a name each task's own."""


@dataclass(frozen=True)
class Run:
    """One run: the items by which every model is reported, and the points that its settings reach.

    Args:
        manifest: What it is about.
        models: Items by model: ``vanilla``, each method as chosen, ``gold``.
        points: What every setting of every method forgets and keeps.
    """

    manifest: Manifest
    models: dict[str, list[ItemScore]]
    points: dict[str, list[Point]]

    @property
    def world(self) -> int:
        """The seed of its people."""
        return int(self.manifest.recipe["benchmark"]["seed"])

    def values(self, model: str, places: Places, metric: str = "") -> tuple[list[float], list[str]]:
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

    def apart(self, model: str) -> float:
        """Kolmogorov and Smirnov's distance (0 to 1) of the truth ratios of the forget split from gold's."""
        found, gold = (
            [item.scores["truth_ratio"] for item in self.models[name] if item.split == "forget" and item.task in ASKED]
            for name in (model, "gold")
        )
        return forget_quality(found, gold).statistic


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
    tables = [task_table(runs, methods), share_table(runs, methods)]
    if "gold" in methods:
        tables += [miss_table(runs, methods), gold_table(runs, methods)]
    print("\n\n".join(tables))
    if arguments.plot:
        plot([run for run in runs if run.world == worlds[0]], arguments.plot)


def read_run(folder: Path) -> Run:
    """Read a finished run."""
    files, manifest = RunFiles(folder), read_results(folder).manifest
    records = [record for name in manifest.requests if (record := files.record(name)) is not None]
    items = {record.identifier: files.items(record.identifier) or [] for record in records}
    _, models = choose(manifest, records, items)
    for record in records:
        if record.label in ("vanilla", "gold"):
            models[record.label] = items[record.identifier]
    points = {method: list(found.values()) for method, found in reach(manifest, records, items).items()}
    return Run(manifest, models, points)


def ordered(runs: Sequence[Run]) -> list[str]:
    """Vanilla, every method that all worlds have, gold; as the recipes list them."""
    worlds = {run.world for run in runs}
    names = dict.fromkeys(name for run in runs for name in run.models if name not in ("vanilla", "gold"))
    everywhere = [name for name in names if {run.world for run in runs if name in run.models} == worlds]
    return ["vanilla", *everywhere, *(["gold"] if any("gold" in run.models for run in runs) else [])]


def of_all_worlds(runs: Sequence[Run], model: str, places: Places) -> tuple[list[float], list[str]]:
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
    rows = {name: [f"{fmean(of_all_worlds(runs, name, [place])[0]):.2f}" for place in tasks] for name in methods}
    return table("", heads, rows)


def share_table(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """What is left of vanilla's answers, by part; hypervolume."""
    rows = {}
    for method in methods[1:]:
        having = of_worlds(runs, method)
        areas = [hypervolume(run.points[method]) for run in runs if method in run.points]
        rows[method] = [share_cell(having, method, places) for places in PARTS.values()] + [spread(areas)]
    return table("share of vanilla's", [*PARTS, "hypervolume"], rows)


def miss_table(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """By how much the targets are missed: answers above gold's, shares of vanilla's answers below what is to stay."""
    heads = [*FORGET_SPLITS, *(f"{part} (of {target:.2f})" for part, target in TO_KEEP.items())]
    rows = {}
    for method in methods[1:-1]:
        having = of_worlds(runs, method)
        above = [
            fmean(of_all_worlds(with_gold(having), method, places)[0])
            - fmean(of_all_worlds(with_gold(having), "gold", places)[0])
            for places in FORGET_SPLITS.values()
        ]
        below = [target - share(having, method, PARTS[part])[0] for part, target in TO_KEEP.items()]
        rows[method] = ["met" if miss <= 0 else f"{miss:.2f}" for miss in (*above, *below)]
    return table("misses its target by", heads, rows)


def gold_table(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """How far what a model says about the forget split is from what the gold model says."""
    rows = {}
    for method in methods[:-1]:
        having = with_gold([run for run in runs if method in run.models])
        worlds = list({run.world: run for run in having}.values())
        rows[method] = [spread([run.gap(method, metric) for run in worlds]) for metric in TO_GOLD.values()]
        rows[method].append(spread([run.apart(method) for run in worlds]))
    return table("distance to gold", [*TO_GOLD, "truth ratios, KS"], rows)


def table(corner: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {corner} | ".replace("|  |", "| |") + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items())])


def of_worlds(runs: Sequence[Run], method: str) -> list[Run]:
    """The runs of the worlds that have a method."""
    worlds = {run.world for run in runs if method in run.models}
    return [run for run in runs if run.world in worlds]


def with_gold(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if "gold" in run.models]


def share(runs: Sequence[Run], method: str, places: Places) -> tuple[float, float, float]:
    """Mean as a share of vanilla's mean, with the ends of the interval of the method's mean in the same unit."""
    whole = fmean(of_all_worlds(runs, "vanilla", places)[0])
    found = mean_interval(*of_all_worlds(runs, method, places))
    return found.mean / whole, (found.low or 0.0) / whole, (found.high or 0.0) / whole


def share_cell(runs: Sequence[Run], method: str, places: Places) -> str:
    """A share with its interval."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*share(runs, method, places))


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
