"""How many phrasings, photos and retain subjects a request needs: forgetting and keeping over their number.

Requests of the choosing half of the proving ground, cut down: each fact asked in the first so many phrasings by name,
or seen in the first so many photos, or what must stay given about the first so many others. What is held out is always
the same. A second call goes on where the first one stopped. With --draw nothing is run: what is there is drawn.

usage: python benchmarks/data_curves.py --out DIR [--axis phrasings photos retain] [--only 1 3] [--draw FILE.png]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.data import Example
from kvw.proving.parts import PARTS
from kvw.proving.record import ProvingRecord, read_record
from kvw.proving.requests import Half, Request
from kvw.proving.run import ProvingGround
from kvw.proving.verdict import kept, mean
from kvw.quiet import quiet_libraries

HALF: Half = "choosing"


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Args:
        part: Part of the proving ground.
        counts: How many there are at each point.
        title: Of the axis of the picture.
    """

    part: str
    counts: tuple[int, ...]
    title: str


Curve = dict[int, ProvingRecord]
"""The record of one request at each point."""
AXES = {
    "phrasings": Axis("world", (1, 2, 4), "phrasings of each fact"),
    "photos": Axis("photos", (1, 2, 3), "photos of each person"),
    "retain": Axis("world", (0, 6, 24), "others in the retain file"),
}


def first_of_each(examples: Iterable[Example], count: int, *, seen: bool) -> list[Example]:
    """The first examples of each fact, those by photo (``seen``) or those by name; the others all stay."""
    had: Counter[Hashable] = Counter()
    found = []
    for example in examples:
        if bool(example.images) is seen:
            fact = (example.subject_key, example.answer)
            had[fact] += 1
            if had[fact] > count:
                continue
        found.append(example)
    return found


def about_the_first(examples: Sequence[Example], count: int) -> list[Example]:
    """The examples about the first so many subjects."""
    subjects = list(dict.fromkeys(example.subject_key for example in examples))[:count]
    return [example for example in examples if example.subject_key in subjects]


def cut_down(request: Request, axis: str, count: int) -> tuple[Request, dict[str, Any]]:
    """The request at one point, and the options of its run."""
    splits = dict(request.splits)
    if axis == "retain":
        splits["retain"] = about_the_first(splits["retain"], count) or splits["retain"]
        return replace(request, splits=splits), {} if count else {"retain": None}
    splits["forget"] = first_of_each(splits["forget"], count, seen=axis == "photos")
    return replace(request, splits=splits), {}


def run(out: Path, name: str, only: Sequence[int]) -> None:
    """Carry out the requests at every point of an axis."""
    axis, reporter = AXES[name], ConsoleReporter()
    part = PARTS[axis.part]
    checkpoint = find_model(part.model)
    chosen = [one for one in part.requests(HALF, checkpoint, reporter) if one.number in only]
    for count in axis.counts:
        cut = [cut_down(request, name, count) for request in chosen]
        ProvingGround(checkpoint, out / f"{name}-{count}", cut[0][1], reporter).run([request for request, _ in cut])


def curves(out: Path, name: str, only: Sequence[int]) -> dict[int, Curve]:
    """What is there of an axis: the record of each point, by request."""
    found: dict[int, Curve] = {}
    for number in only:
        places = {count: out / f"{name}-{count}" / HALF / f"{number:02d}" for count in AXES[name].counts}
        there = {count: record for count, place in places.items() if (record := read_record(place)) is not None}
        if there:
            found[number] = there
    return found


def values(curve: Curve) -> dict[str, list[float]]:
    """What is shown of each point: shares of questions that bring the fact, and of probability that is kept."""
    return {
        "forget set, brought": [_brought(one, "forget") for one in curve.values()],
        "held out, brought": [_brought(one, "held_out") for one in curve.values()],
        "others, probability kept": [
            kept([item for item in one.splits["unused"] if not item.named], "probability") for one in curve.values()
        ],
    }


def _brought(record: ProvingRecord, split: str) -> float:
    return mean(record.splits[split], "chosen", "before" if record.state != "written" else "after")


def table(name: str, found: Mapping[int, Curve]) -> str:
    """The points of an axis as Markdown."""
    shown = {number: values(curve) for number, curve in found.items()}
    titles = list(next(iter(shown.values())))
    lines = [f"| request | {AXES[name].title} | {' | '.join(titles)} |", f"|---|---:|{'---:|' * len(titles)}"]
    for number, curve in found.items():
        for place, (count, record) in enumerate(curve.items()):
            cells = [f"{points[place]:.3f}" for points in shown[number].values()]
            lines.append(f"| {number}: {', '.join(record.subjects)} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(axes: Axes, name: str, curve: Curve) -> None:
    """One request as a picture: forgetting solid, keeping dashed, dotted what was brought before."""
    before = [mean(one.splits["held_out"], "chosen", "before") for one in curve.values()]
    axes.plot(range(len(curve)), before, ":", color="grey", label="held out, brought before")
    for title, points in values(curve).items():
        axes.plot(range(len(points)), points, "--s" if "kept" in title else "-o", markersize=4, label=title)
    axes.set_xticks(range(len(curve)), [str(count) for count in curve])
    axes.set_xlabel(AXES[name].title)
    axes.set_title(", ".join(next(iter(curve.values())).subjects), fontsize=9)
    axes.set_ylim(-0.03, 1.05)


def main() -> None:
    """Run and print, or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--axis", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--only", type=int, nargs="+", default=[3, 4], help="the requests of these numbers")
    parser.add_argument("--draw", type=Path, help="draw the curves of what is there into this file")
    arguments = parser.parse_args()
    quiet_libraries()
    if not arguments.draw:
        for name in arguments.axis:
            run(arguments.out, name, arguments.only)
    found = {name: there for name in arguments.axis if (there := curves(arguments.out, name, arguments.only))}
    for name, there in found.items():
        print(f"{table(name, there)}\n")
    if arguments.draw:
        pictures = [(name, curve) for name, there in found.items() for curve in there.values() if len(curve) > 1]
        if not pictures:
            parser.error("no curve has two points yet")
        figure = Figure(figsize=(3.4 * len(pictures), 3.4), layout="constrained")
        for axes, (name, curve) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures, strict=True):
            draw(axes, name, curve)
        figure.axes[0].legend(fontsize=8)
        figure.savefig(arguments.draw, dpi=110)


if __name__ == "__main__":
    main()
