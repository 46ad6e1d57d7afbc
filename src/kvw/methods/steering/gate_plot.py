"""A picture of how far the gates of several sets overlap."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvw.methods.steering.diagnosis import Diagnosis
from kvw.methods.steering.gate import FAIR_AUC


def plot_gates(diagnosis: Diagnosis, path: Path, *, forget: str = "forget") -> None:
    """Draw the gates of all sets, and by layer how well they are told from the forget set, into a PNG file."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_overlap(left, diagnosis)
    _draw_by_layer(right, diagnosis, forget)
    figure.savefig(path, dpi=140)


def _draw_overlap(axes: Axes, diagnosis: Diagnosis) -> None:
    values = [diagnosis.mean_gates(name).numpy() for name in diagnosis.gates]
    names = [name.replace("_", " ") for name in diagnosis.gates]
    axes.hist(values, bins=40, density=True, histtype="step", label=names)
    axes.axvline(0, color="grey", linewidth=1)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xlabel("gate a \N{MIDDLE DOT} h, mean over layers")
    axes.set_ylabel("density")
    axes.set_title("who is steered, and how far", fontsize=10)
    axes.legend(fontsize=8)


def _draw_by_layer(axes: Axes, diagnosis: Diagnosis, forget: str) -> None:
    layers = list(diagnosis.gates[forget])
    for name in diagnosis.gates:
        if name != forget:
            curve = [diagnosis.auc(name, forget=forget, layer=layer) for layer in layers]
            axes.plot(layers, curve, "-o", markersize=4, label=name.replace("_", " "))
    axes.axhline(FAIR_AUC, color="grey", linewidth=1)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("decoder layer")
    axes.set_ylabel(f"AUC of {forget} against others")
    axes.set_title("how well the gate tells them apart", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
