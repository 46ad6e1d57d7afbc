"""Pictures of benchmark runs: forgetting against keeping, curves of a setting, and bars with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kvw.bench.points import Panel, curves, front
from kvw.bench.together import Comparison

COLOURS = {"vanilla": "#000000", "gold": "#d4a017"}
"""Of what is no method; no method has them."""
NAMES = {"vanilla": "original", "gold": "gold (never knew it)"}
MARKERS = "osD^vP<>Xph8"
WIDTH, HEIGHT = 5.6, 4.2
"""Inches of a panel."""
AS_TEXT: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "bench"}
"""Words can be searched and edited, and the same results give the same bytes."""
METADATA: Mapping[str, Mapping[str, str | None]] = {
    ".pdf": {"Creator": "kvw bench plot", "CreationDate": None},
    ".svg": {"Creator": "kvw bench plot", "Date": None},
    ".png": {"Software": "kvw bench plot"},
}
"""Who has drawn it, and no date."""


def save(figure: Figure, path: Path) -> None:
    """Write a picture in the form of its suffix: .pdf, .svg or .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    with rc_context(AS_TEXT):
        figure.savefig(path, format=suffix[1:], dpi=160, metadata=dict(METADATA[suffix]))


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label, none twice, and none that vanilla or gold has."""
    few = [to_hex(colour) for colour in colormaps["tab10"].colors]  # type: ignore[attr-defined]
    hues = [(place / len(labels), 0.9, (0.85, 0.6)[place % 2]) for place in range(len(labels))]
    many = ["#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in hsv_to_rgb(*hue))) for hue in hues]
    chosen = few if len(labels) <= len(few) else many
    return {**dict(zip(labels, chosen, strict=False)), **COLOURS}


def tradeoff_figure(panels: Sequence[Panel]) -> Figure:
    """Every setting of every method as a point, with the front of each method; a panel for each benchmark and model.

    Up is kept, left is forgotten: the upper left corner is the best there is.
    """
    figure, grid = _grid(len(panels))
    chosen = colours(_methods(panels))
    for axes, panel in zip(grid, panels, strict=True):
        for place, method in enumerate(panel.methods):
            own = [point for point in panel.points if point.label == method]
            style: dict[str, Any] = {"color": chosen[method], "marker": MARKERS[place % len(MARKERS)]}
            axes.scatter([one.forget for one in own], [one.retain for one in own], s=22, alpha=0.55, **style)
            best = front(own)
            axes.plot([one.forget for one in best], [one.retain for one in best], lw=1.4, ms=6, label=method, **style)
        for point in panel.points:
            if point.label in NAMES:
                star: dict[str, Any] = {"marker": "*", "ls": "", "color": COLOURS[point.label]}
                axes.plot(point.forget, point.retain, ms=15, label=NAMES[point.label], **star)
        axes.set(title=panel.title, xlabel=f"score on {panel.forget} (small: forgotten)")
        axes.set_ylabel(f"score on {panel.retain}")
        axes.grid(alpha=0.3)
        _legend(axes)
    return figure


def curve_figure(panels: Sequence[Panel], setting: str) -> Figure:
    """A curve over the values of a setting for each method: what is forgotten (solid), what is kept (dashed).

    Raises:
        UserError: No method was run with two values of it.
    """
    figure, grid = _grid(len(panels))
    for axes, panel in zip(grid, panels, strict=True):
        lines = curves(panel, setting)
        chosen = colours(list(lines))
        places = _places([value for line in lines.values() for value, _ in line])
        for name, line in lines.items():
            xs = [places[str(value)] for value, _ in line]
            axes.plot(xs, [point.forget for _, point in line], "-o", ms=4, color=chosen[name], label=f"{name}, forget")
            axes.plot(xs, [point.retain for _, point in line], "--s", ms=4, color=chosen[name], label=f"{name}, retain")
        for point in panel.points:
            if point.label in NAMES:
                for score, style in ((point.forget, "-"), (point.retain, "--")):
                    axes.axhline(score, color=COLOURS[point.label], ls=style, lw=0.9)
                axes.plot([], [], color=COLOURS[point.label], lw=0.9, label=NAMES[point.label])
        _scale(axes, places)
        axes.set(title=panel.title, xlabel=setting, ylabel="score (solid: forget, dashed: retain)")
        axes.grid(alpha=0.3)
        _legend(axes)
    return figure


def bar_figure(found: Sequence[Comparison]) -> Figure:
    """A group of bars for each task, a bar for each model, with the intervals of the table."""
    longest = max((len(one.rows) * len(one.models) for one in found), default=1)
    figure, grid = _grid(len(found), width=max(WIDTH, 1.5 + 0.22 * longest), one_below=True)
    labels = list(dict.fromkeys(name for one in found for name in one.models if name not in NAMES))
    chosen = colours(labels)
    for axes, one in zip(grid, found, strict=True):
        width = 0.8 / max(1, len(one.models))
        for place, model in enumerate(one.models):
            cells = [(number, row.cells[model]) for number, row in enumerate(one.rows) if model in row.cells]
            xs = [number - 0.4 + width * (place + 0.5) for number, _ in cells]
            means = [cell.mean for _, cell in cells]
            axes.bar(xs, means, width * 0.9, color=chosen[model], label=NAMES.get(model, model))
            for x, (_, cell) in zip(xs, cells, strict=True):
                if cell.low is not None and cell.high is not None:
                    axes.plot([x, x], [cell.low, cell.high], color="black", lw=1, gid=f"interval {model}")
        seeds = len(one.seeds)
        over = f"over {seeds} seeds" if seeds > 1 else "over subjects"
        axes.set(title=f"{one.manifest.benchmark}, {one.manifest.setting}: 95 % intervals {over}", ylabel="score")
        names = [f"{row.split}\n{row.task}" for row in one.rows]
        axes.set_xticks(range(len(names)), names, fontsize=7)
        axes.set_ylim(bottom=0)
        _legend(axes)
    return figure


def _methods(panels: Sequence[Panel]) -> list[str]:
    return list(dict.fromkeys(method for panel in panels for method in panel.methods))


def _grid(count: int, *, width: float = WIDTH, one_below: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels: at most three beside each other, or all below each other."""
    columns = 1 if one_below else min(3, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, HEIGHT * lines), layout="constrained")
    grid = [axes for line in figure.subplots(lines, columns, squeeze=False) for axes in line]
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]


def _legend(axes: Axes) -> None:
    entries = len(axes.get_legend_handles_labels()[1])
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(4, max(1, entries)))


def _places(values: Sequence[Any]) -> dict[str, float]:
    """Where each value is on the axis: numbers at their size, and if one of them is no number all in order."""
    numbers = {str(value): float(value) for value in values if isinstance(value, int | float)}
    every = dict.fromkeys(map(str, values))
    return numbers if len(numbers) == len(every) else {text: float(place) for place, text in enumerate(every)}


def _scale(axes: Axes, places: Mapping[str, float]) -> None:
    """Ticks at the values; a logarithmic axis if the largest is more than ten times the smallest."""
    found = sorted(places.values())
    if found[0] > 0 and found[-1] > 10 * found[0]:
        axes.set_xscale("log")
    if len(found) <= 12:
        axes.set_xticks(list(places.values()), list(places), fontsize=8)
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8))
