"""Edits of tiny models that attacks are tried on."""

from __future__ import annotations

import torch

from kvw.edits.gates import GateEdit
from kvw.models.finding import find_value_matrices


def weakening(model, *, size=0.4):
    """Gates between exp(-size) and 1 on every value matrix."""
    generator = torch.Generator().manual_seed(3)
    return GateEdit(
        {matrix.key: -size * torch.rand(matrix.width, generator=generator) for matrix in find_value_matrices(model)}
    )
