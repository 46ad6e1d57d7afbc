"""Pictures, drawn from records alone."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvw.runs.demo import DemoRecord


def plot_demo(record: DemoRecord, path: Path) -> None:
    """Draw forgetting against keeping over gamma, and the accessor by layer, into a PNG file."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_sweep(left, record)
    _draw_accessors(right, record)
    figure.savefig(path, dpi=140)


def _draw_sweep(axes: Axes, record: DemoRecord) -> None:
    gammas = [point.gamma for point in record.sweep]
    for split in record.sweep[0].exact:
        style = "-o" if split.startswith("forget") else "--s"
        values = [point.exact[split] for point in record.sweep]
        axes.plot(gammas, values, style, markersize=4, label=split.replace("_", " "))
    axes.axhline(record.splits["forget"]["gold"].exact, color="grey", linewidth=1, label="forget, gold model")
    # Linear near 0, so that the original model fits on the axis.
    axes.set_xscale("symlog", linthresh=min(gamma for gamma in gammas if gamma))
    axes.set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
    axes.set_xlabel("gamma (0: original model)")
    axes.set_ylabel("exact match")
    axes.set_ylim(-0.03, 1.03)
    axes.set_title("forgetting (solid) against keeping (dashed)", fontsize=10)
    axes.legend(fontsize=7)


def _draw_accessors(axes: Axes, record: DemoRecord) -> None:
    layers = [row.layer for row in record.accessors]
    axes.bar(layers, [row.mean for row in record.accessors], color="tab:blue", label="mean A")
    share = axes.twinx()
    share.plot(layers, [row.share_positive for row in record.accessors], "k.-", label="share with A > 0")
    share.set_ylim(0, 1)
    share.set_ylabel("share of knowledge vectors with A > 0")
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("mean A")
    axes.set_xticks(layers)
    axes.set_title("accessor by layer, original model", fontsize=10)
