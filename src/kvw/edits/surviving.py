"""How much of an edit is still there once it is folded into weights of few bits."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.weight_edit import WeightEdit
from kvw.models.value_matrix import MatrixKey


def surviving_shares(
    edit: WeightEdit, model: PreTrainedModel, dtype: torch.dtype | None = None
) -> dict[MatrixKey, float]:
    """The share of the edit that folding it into the model would keep, for each value matrix.

    Numbers of few bits round a small change away: in bfloat16 one below half of 2^-8 of a weight is lost. The share is
    1 if nothing is lost, and may exceed 1 where rounding exaggerates.

    Args:
        edit: It is not changed, nor is the model.
        model: Its model, not yet edited, with weights that are not quantised.
        dtype: What the model would be stored in; None for what it is held in.

    Raises:
        UserError: The edit is for another model.
    """
    shares = {}
    for key, matrix in edit.value_matrices(model).items():
        weight = matrix.read() if dtype is None else matrix.read().to(dtype)
        exact = edit.changed(matrix, weight.double()) - weight.double()
        shares[key] = surviving_share(weight, edit.changed(matrix, weight), exact)
    return shares


def surviving_share(weight: Tensor, folded: Tensor, change: Tensor) -> float:
    """<folded - weight, change> / ||change||^2.

    Args:
        weight: Before: any shape, any floating dtype.
        folded: After, rounded to that dtype.
        change: What should have been added: float64.

    Returns:
        The share; 1 if there was nothing to add.
    """
    size = change.square().sum()
    if not size:
        return 1.0
    kept = folded.double() - weight.double()
    return float(torch.sum(kept * change) / size)
