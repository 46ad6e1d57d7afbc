"""The picture of the demo, drawn from nothing but its records."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from kvw.methods.registry import DEFAULT, PUBLISHED, get_method
from kvw.pages.cases import cases
from kvw.records.samples import Row, read_rows
from kvw.runs.demo import DemoRecord

FACES = 4
"""Faces of the forgotten, and as many of others."""
COLOURS = {
    "forget": "#d62728",
    "forget_new_photos": "#e377c2",
    "retain": "#1f77b4",
    "unused": "#17becf",
    "general": "#2ca02c",
}
"""By split; the other things have other colours."""
GOLD, WEAKENED, BARS, SHARE = "#d4a017", "black", "#bbbbbb", "#9467bd"
RIGHT, WRONG = "\N{CHECK MARK}", "\N{MULTIPLICATION X}"


def plot_demo(record: DemoRecord, samples: Path, path: Path) -> None:
    """Draw the demo into a PNG file, see :func:`demo_figure`.

    Args:
        record: What the demo found.
        samples: ``samples.jsonl`` of its run.
        path: The file.
    """
    rows = read_rows(samples.read_text(encoding="utf-8").splitlines(), str(samples))
    demo_figure(record, rows).savefig(path, dpi=140)


def demo_figure(record: DemoRecord, rows: Sequence[Row]) -> Figure:
    """Faces with their answers before and after; then forgetting against keeping over gamma, and the accessor by layer.

    Args:
        record: What the demo found.
        rows: Of its run. Shown are those with a picture.
    """
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[2, 3])
    above, below = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    _draw_faces(above, record, rows)
    left, right = below.subplots(1, 2)
    _draw_sweep(left, record)
    _draw_accessors(right, record)
    return figure


def _draw_faces(figure: SubFigure, record: DemoRecord, rows: Sequence[Row]) -> None:
    figure.suptitle(f"before and after {get_method(DEFAULT).title}: the forgotten above, others below", fontsize=10)
    shown = [[row for row in case.rows if row.thumbnail] for case in cases(record.run, rows)]
    about = {row.split for case in cases(record.run, rows) if "forgotten" in case.title for row in case.rows}
    forgotten = _in_turn([many for many in shown if many and many[0].split in about])
    others = _in_turn([many for many in shown if many and many[0].split not in about])
    grid = figure.subplots(2, FACES, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, faces in zip(grid, (forgotten, others), strict=True):
        for axes, row in zip(line, faces, strict=False):
            _draw_face(axes, row)


def _in_turn(groups: Sequence[Sequence[Row]]) -> list[Row]:
    """The first of each group, then the second of each: what went as expected and what did not."""
    return [row for turn in zip_longest(*groups) for row in turn if row is not None]


def _draw_face(axes: Axes, row: Row) -> None:
    picture = Image.open(io.BytesIO(base64.b64decode(row.thumbnail.partition(",")[2])))
    axes.imshow(picture, extent=(0, 1, 0, 1))
    axes.set_xlim(0, 3.2)
    axes.set_ylim(0, 1)
    lines = [textwrap.fill(row.question, 24)]
    for name, title in (("original", "before"), ("unlearned", "after")):
        reply = row.replies[name]
        lines.append(f"{title}: {textwrap.shorten(reply.text, 24) or '(nothing)'} {RIGHT if reply.right else WRONG}")
    axes.text(1.1, 0.5, "\n".join(lines), fontsize=8, verticalalignment="center", fontfamily="DejaVu Sans")


def _draw_sweep(axes: Axes, record: DemoRecord) -> None:
    places = range(len(record.sweep))
    for split in record.sweep[0].exact:
        style = "-o" if split.startswith("forget") else "--s"
        values = [point.exact[split] for point in record.sweep]
        axes.plot(places, values, style, color=COLOURS[split], markersize=4, label=split.replace("_", " "))
    gold = record.splits["forget"]["gold"].exact
    axes.axhline(gold, color=GOLD, linewidth=3, label="forget, gold model (never knew them)")
    weakened = record.splits["forget"][DEFAULT].exact
    axes.axhline(weakened, color=WEAKENED, linestyle=":", label=f"forget, {get_method(DEFAULT).title}")
    axes.set_xticks(places, [f"{point.gamma:g}" if point.gamma else "original" for point in record.sweep])
    axes.set_xlabel(f"gamma of {get_method(PUBLISHED).title}")
    axes.set_ylabel("exact match")
    axes.set_ylim(-0.03, 1.03)
    axes.set_title("forgetting (solid) against keeping (dashed)", fontsize=10)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def _draw_accessors(axes: Axes, record: DemoRecord) -> None:
    layers = [row.layer for row in record.accessors]
    axes.bar(layers, [row.mean for row in record.accessors], color=BARS)
    share = axes.twinx()
    share.plot(layers, [row.share_positive for row in record.accessors], ".-", color=SHARE)
    share.set_ylim(0, 1)
    share.set_ylabel("line: share of knowledge vectors with A > 0")
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("bars: mean A")
    axes.set_xticks(layers)
    axes.set_title("accessor by layer, original model", fontsize=10)
