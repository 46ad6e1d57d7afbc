"""How much an edit weakens, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kvw.models.value_matrix import MatrixKey
from kvw.strict import Strict


class LayerSummary(Strict):
    """Gates of one value matrix, or of all weakened experts of a layer, in numbers."""

    key: str
    """``layer.3``, ``layer.3.experts``, or ``layer.3.attention``."""
    matrices: int = 1
    """Value matrices in this entry: 1, or how many experts."""
    vectors: int
    weakened: int
    """Knowledge vectors with a gate below 1."""
    strengthened: int = 0
    """Knowledge vectors with a gate above 1; none but in inverses and imported adapters."""
    mean_gate: float
    smallest_gate: float
    total_exponent: float
    """Sum of -log g over the vectors: gamma times the accessors of all steps."""
    rank: int | None = None
    """Directions of a low-rank edit. Then ``weakened`` and the three numbers after it are about directions instead of
    single vectors; None for gates."""
    shift: float | None = None
    """Of an edit of states: how far a state of this layer is moved where the gate a . h is 1. Then no vector is
    weakened. None for edits of value matrices."""
    angle: float | None = None
    """Of an edit that turns states: by how many degrees at most. Then no vector is weakened."""
    trained: int | None = None
    """Numbers of the weight that training has changed. Then the key is its name, and no vector is weakened; None for
    edits of value matrices."""

    @classmethod
    def of_weight(cls, key: str, numbers: int) -> LayerSummary:
        """A weight that was trained."""
        return cls.of_shift(key, 0.0).model_copy(update={"shift": None, "trained": numbers})

    @classmethod
    def of_rotation(cls, key: str, angle: float) -> LayerSummary:
        """A layer whose states are turned by at most so many degrees."""
        return cls.of_shift(key, 0.0).model_copy(update={"shift": None, "angle": angle})

    @classmethod
    def of_shift(cls, key: str, shift: float) -> LayerSummary:
        """A layer whose states are moved and whose value matrices stay as they are."""
        return cls(
            key=key,
            matrices=0,
            vectors=0,
            weakened=0,
            mean_gate=1.0,
            smallest_gate=1.0,
            total_exponent=0.0,
            shift=shift,
        )


def summarise_log_gates(log_gates: Mapping[MatrixKey, Tensor]) -> list[LayerSummary]:
    """Summarise log-gates: (width,), float32, for each value matrix; experts of a layer together."""
    groups: dict[str, list[Tensor]] = {}
    for key, value in log_gates.items():
        groups.setdefault(_entry(key), []).append(value)
    return [_summarise(name, torch.cat(values), len(values)) for name, values in groups.items()]


def summarise_low_rank(directions: Mapping[MatrixKey, tuple[int, Tensor]]) -> list[LayerSummary]:
    """Summarise low-rank edits; experts of a layer together.

    Args:
        directions: Width and log-gates (rank,), float32, for each value matrix.
    """
    groups: dict[str, list[tuple[int, Tensor]]] = {}
    for key, found in directions.items():
        groups.setdefault(_entry(key), []).append(found)
    summaries = []
    for name, found_there in groups.items():
        log_gates = torch.cat([value for _, value in found_there])
        # Without directions T = I: a mean and a smallest gate of 1.
        summary = _summarise(name, log_gates if log_gates.numel() else torch.zeros(1), len(found_there))
        vectors = sum(width for width, _ in found_there)
        summaries.append(summary.model_copy(update={"vectors": vectors, "rank": log_gates.numel()}))
    return summaries


def _entry(key: MatrixKey) -> str:
    return str(key) if key.expert is None else f"layer.{key.layer}.experts"


def _summarise(name: str, log_gates: Tensor, matrices: int) -> LayerSummary:
    return LayerSummary(
        key=name,
        matrices=matrices,
        vectors=log_gates.numel(),
        weakened=int((log_gates < 0).sum()),
        strengthened=int((log_gates > 0).sum()),
        mean_gate=float(log_gates.exp().mean()),
        smallest_gate=float(log_gates.min().exp()),
        total_exponent=float(-log_gates.double().sum()),
    )
