"""``kvw sweep layers`` as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvw.percent import percent
from kvw.records.layer_sweep import LayerCurve, LayerPoint, LayerSweep
from kvw.report.terminal import console, number_table
from kvw.runs.sweep_layers import PICTURE, RECORD


def print_layers(record: LayerSweep, out: Path) -> None:
    """One line for each window, and where the rest is."""
    keep = percent(record.keep)
    table = number_table(
        "layers",
        f"left where {keep} is kept",
        "answered there",
        record.unit,
        "kept where none is answered",
        title=f"{record.model}, {record.method}: forgetting by layers",
    )
    for curve in record.curves:
        strongest, cheapest = curve.strongest(record.keep), curve.cheapest()
        table.add_row(curve.title, *_cells(strongest, record), f"{cheapest.least_kept:.3f}" if cheapest else "-")
    screen = console()
    screen.print(table)
    screen.print(
        f"Before, {record.answered} of {record.questions} forget questions are answered, teacher-forced. Left: of the "
        "probability of their answers. Kept: of plain text, and of all other held-out answers, the smaller share."
    )
    screen.print(f"All points and the picture are in {out}: {RECORD}, {PICTURE}")


def _cells(point: LayerPoint | None, record: LayerSweep) -> tuple[str, str, str]:
    if point is None:
        return "1.000", f"{record.answered} of {record.questions}", "-"
    return f"{point.left:.3f}", f"{point.answered} of {record.questions}", f"{point.dose:g}"


def plot_layers(record: LayerSweep, path: Path) -> None:
    """Draw what is left of the forgotten over what is kept, a line for each window, into a PNG or SVG file."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for place, curve in enumerate(record.curves):
        _draw(axes, curve, f"C{place % 10}", "-" if place < 10 else "--")
    axes.axvline(record.keep, color="grey", linewidth=1, linestyle=":")
    axes.set_xlabel("kept of what must stay, the smaller share")
    axes.set_ylabel("left of the forget answers' probability")
    axes.set_xlim(0.4, 1.03)
    axes.set_ylim(-0.03, 1.05)
    axes.set_title(f"{record.method}: layers", fontsize=10)
    axes.legend(fontsize=7, title="layers", title_fontsize=7)
    figure.savefig(path, dpi=140)


def _draw(axes: Axes, curve: LayerCurve, colour: str, style: str) -> None:
    kept = [1.0, *(point.least_kept for point in curve.points)]
    left = [1.0, *(point.left for point in curve.points)]
    axes.plot(kept, left, style, marker="o", markersize=3, color=colour, label=curve.title)
