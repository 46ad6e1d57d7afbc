"""How far are the layers of an edit from adding up?

One edit of planted people, cut to single layers, to all but one, and to random groups. The effect of a part is what it
takes from the log probability of the forget answers, asked as they were and in a held-out way. If layers did not
interact, the effects of groups that make up the whole would add up to the effect of the whole.

usage: python benchmarks/layer_interactions.py --out DIR [--on people] [--only 0] [--methods kvw subspace]
       [--draw FILE.png]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from kvw.console import ConsoleReporter
from kvw.data import Example
from kvw.edits.edit import Edit
from kvw.edits.parts import within_layers
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics import mean_interval
from kvw.files import write_text
from kvw.quiet import quiet_libraries
from kvw.report.sheets import markdown_table
from kvw.runs.costs import Stopwatch
from planted import GROUNDS, edit_of, kept, log_probabilities, options, scores

GROUPS, DRAWS = (2, 5, 10), 2
HEADER = ["request", "method", "layers", "whole", "single layers", "leave one out", "ratio", "not additive", "interval"]
Effects = list[float]
"""Of each answer, nats."""


def acting(edit: Edit) -> list[int]:
    """The layers in which an edit does something."""
    return sorted({int(one.key.split(".")[1]) for one in edit.describe() if one.weakened})


def total(parts: Sequence[Effects]) -> Effects:
    """Sums over the parts, for each answer."""
    return [sum(values) for values in zip(*parts, strict=True)]


def measured(loaded: Loaded, questions: Mapping[str, Sequence[Example]], edit: Edit) -> dict[str, Any]:
    """The effects of all parts."""
    asked = {name: questions[name] for name in ("forget", "held_out")}

    def found() -> Effects:
        return [value for split in scores(loaded, asked).values() for value in log_probabilities(split)]

    before, layers = found(), acting(edit)

    def effect(of: Collection[int]) -> Effects:
        with within_layers(edit, of).attach(loaded.model):
            return [was - now for was, now in zip(before, found(), strict=True)]

    whole = effect(layers)
    groups: dict[str, list[Effects]] = {}
    for count in (number for number in GROUPS if number < len(layers)):
        for draw in range(DRAWS):
            mixed = Random(f"{count} {draw}").sample(layers, len(layers))
            groups.setdefault(str(count), []).append(total([effect(mixed[start::count]) for start in range(count)]))
    without = [effect([layer for layer in layers if layer != out]) for out in layers] if len(layers) > 1 else []
    return {
        "layers": layers,
        "facts": [one.metadata["fact"] for split in asked.values() for one in split],
        "whole": whole,
        "single": [effect([layer]) for layer in layers],
        "leave one out": [[all_ - part for all_, part in zip(whole, one, strict=True)] for one in without],
        "groups": groups,
    }


def shown(name: str, method: str, found: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    whole, single = found["whole"], total(found["single"])
    gap = [all_ - parts for all_, parts in zip(whole, single, strict=True)]
    sure = mean_interval(gap, found["facts"])
    out = f"{fmean(total(found['leave one out'])):.1f}" if found["leave one out"] else "-"
    numbers = [f"{fmean(whole):.1f}", f"{fmean(single):.1f}", out, f"{fmean(single) / fmean(whole):.2f}"]
    interval = f"{sure.low:.1f} to {sure.high:.1f}" if sure.low is not None else "-"
    return [name, method, str(len(found["layers"])), *numbers, f"{sure.mean:.1f}", interval]


def draw(results: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """The sum of the effects of groups over the effect of the whole, by the number of groups."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for place, (title, found) in enumerate(results.items()):
        whole, colour = fmean(found["whole"]), f"C{place}"
        points = {1: [1.0], len(found["layers"]): [fmean(total(found["single"])) / whole]}
        points |= {int(count): [fmean(one) / whole for one in draws] for count, draws in found["groups"].items()}
        counts = sorted(points)
        axes.plot(counts, [fmean(points[count]) for count in counts], "-", color=colour, label=title)
        for count in counts:
            axes.plot([count] * len(points[count]), points[count], "o", markersize=3, color=colour)
    axes.axhline(1, color="grey", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    most = max(len(found["layers"]) for found in results.values())
    axes.set_xticks(ticks := [count for count in (1, 2, 3, 5, 10, 30) if count <= most], list(map(str, ticks)))
    axes.minorticks_off()
    axes.set_xlabel("groups of layers, at random; the last point is single layers")
    axes.set_ylabel("sum of their effects / effect of the whole")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Cut, score and print."""
    parser = options(__doc__)
    parser.add_argument("--methods", nargs="+", default=["kvw", "subspace"])
    parser.add_argument("--draw", type=Path, help="draw the sums over the number of groups into this file")
    arguments = parser.parse_args()
    quiet_libraries()
    reporter = ConsoleReporter()
    ground = GROUNDS[arguments.on]
    watch, loaded = Stopwatch(reporter), ground.load()
    table, results = [], {}
    for number in arguments.only:
        request = ground.made(number, arguments.out)
        for method in arguments.methods:
            edit = edit_of(ground, request, arguments.out, method, reporter)
            file = arguments.out / f"interactions-{request.name}-{method}.json"
            with watch.stage(f"request {request.name}, {method}"):
                found = kept(file, partial(measured, loaded, ground.asked(request), edit))
            table.append(shown(request.name, method, found))
            results[f"{method}, request {request.name}"] = found
    text = markdown_table(HEADER, table, 2) + "\n"
    write_text(arguments.out / "interactions.md", text)
    print(text)
    if arguments.draw:
        draw(results, arguments.draw)


if __name__ == "__main__":
    main()
