"""A pruned model keeps its zeros in training, and what they would have moved goes to the weights beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.training.settings import TrainingSettings

FEWEST = 0.1
"""Share of exact zeros from which on a matrix counts as pruned, unless told otherwise."""


def surviving(
    model: PreTrainedModel, parameters: Mapping[str, object], settings: TrainingSettings
) -> dict[str, Tensor]:
    """Where the matrices of a pruned model are not zero.

    Embeddings and vectors (biases, norms) are never pruned; a matrix of zeros alone has nothing that survived.

    Args:
        model: The model before training.
        parameters: What is looked at, by name; packed weights are left out.
        settings: Whether to keep zeros.

    Returns:
        For each pruned matrix a boolean tensor of its shape, True where it is not zero.
    """
    if settings.keep_zeros == "off":
        return {}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    fewest = FEWEST if settings.keep_zeros == "auto" else 0.0
    found = {}
    for name, parameter in parameters.items():
        if not isinstance(parameter, nn.Parameter) or parameter.is_meta or not parameter.is_floating_point():
            continue
        if parameter.ndim < 2 or id(parameter) in embeddings:
            continue
        zeros = parameter.numel() - int(parameter.detach().count_nonzero())
        if 0 < zeros < parameter.numel() and zeros >= fewest * parameter.numel():
            found[name] = parameter.detach() != 0
    return found


def redistributed(step: Tensor, survivors: Tensor, importance: Tensor, rows: int, largest: float = 10.0) -> Tensor:
    """What the zeros would have moved, given to the weights that survived, in proportion to their importance.

    u' = S (u + sign(u) q m), where m is the sum of abs(u) over the zeros of a row and q a survivor's share of the row's
    importance. So the sum of abs(u') over a row is that of abs(u), as long as every survivor moves and none reaches its
    limit.

    Args:
        step: u, what an optimiser moved each weight by: (rows, ...).
        survivors: S, True where a weight is not zero: of the same shape.
        importance: Of each weight, not negative: of the same shape.
        rows: How many rows to cut it into; with 1 what is lost goes anywhere.
        largest: The most that abs(u') / abs(u) may be.

    Returns:
        u', of the same shape; 0 where a weight is zero.
    """
    moved, alive, weights = step.reshape(rows, -1), survivors.reshape(rows, -1), importance.reshape(rows, -1)
    weights = torch.where(alive & (moved != 0), weights, 0)
    lost = torch.where(alive, 0, moved.abs()).sum(1, keepdim=True)
    shares = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(step.dtype).tiny)
    given = torch.minimum(shares * lost, (largest - 1) * moved.abs())
    return torch.where(alive, moved + moved.sign() * given, 0).view_as(step)


def importance_of(weight: Tensor, gradient: Tensor, kind: Literal["gradient", "fisher", "magnitude"]) -> Tensor:
    """How much each weight counts when a step is given out: abs(g), g squared, or abs(W); of the weight's shape."""
    if kind == "magnitude":
        return weight.abs()
    return gradient.abs() if kind == "gradient" else gradient.square()
