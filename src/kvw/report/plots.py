"""Pictures, drawn from nothing but records."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvw.methods.registry import DEFAULT, PUBLISHED, get_method
from kvw.runs.demo import DemoRecord


def plot_demo(record: DemoRecord, path: Path) -> None:
    """Draw forgetting against keeping over gamma, and the accessor by layer, into a PNG file."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_sweep(left, record)
    _draw_accessors(right, record)
    figure.savefig(path, dpi=140)


def _draw_sweep(axes: Axes, record: DemoRecord) -> None:
    places = range(len(record.sweep))
    for split in record.sweep[0].exact:
        style = "-o" if split.startswith("forget") else "--s"
        values = [point.exact[split] for point in record.sweep]
        axes.plot(places, values, style, markersize=4, label=split.replace("_", " "))
    gold = record.splits["forget"]["gold"].exact
    axes.axhline(gold, color="grey", linewidth=1, label="forget, gold model")
    weakened = record.splits["forget"][DEFAULT].exact
    axes.axhline(weakened, color="tab:red", linewidth=1, label=f"forget, {get_method(DEFAULT).title}")
    axes.set_xticks(places, [f"{point.gamma:g}" if point.gamma else "original" for point in record.sweep])
    axes.set_xlabel(f"gamma of {get_method(PUBLISHED).title}")
    axes.set_ylabel("exact match")
    axes.set_ylim(-0.03, 1.03)
    axes.set_title("forgetting (solid) against keeping (dashed)", fontsize=10)
    axes.legend(fontsize=8, loc="lower left")


def _draw_accessors(axes: Axes, record: DemoRecord) -> None:
    layers = [row.layer for row in record.accessors]
    axes.bar(layers, [row.mean for row in record.accessors], color="tab:blue", alpha=0.7)
    share = axes.twinx()
    share.plot(layers, [row.share_positive for row in record.accessors], "k.-")
    share.set_ylim(0, 1)
    share.set_ylabel("line: share of knowledge vectors with A > 0")
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("bars: mean A")
    axes.set_xticks(layers)
    axes.set_title("accessor by layer, original model", fontsize=10)
