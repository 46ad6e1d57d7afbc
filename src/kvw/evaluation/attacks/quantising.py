"""Attack: quantise the unlearned model to integers of few bits, simulated so that it runs anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.models.experts import ExpertMatrix
from kvw.models.finding import find_value_matrices
from kvw.training.adapters import linear_names
from kvw.training.keeping import weights_kept

GROUP = 128
"""Successive inputs of one output that share a step, as GPTQ's and AWQ's checkpoints have it."""


@contextmanager
def quantised(model: PreTrainedModel, bits: int, group: int = GROUP) -> Iterator[None]:
    """Round the weights of the language part's linear maps to integers, for the length of the block.

    The output layer, embeddings, norms and biases, the vision tower and the projector stay as they are, as in most
    quantised checkpoints. The model computes with the rounded values in its own dtype; activations are not quantised.

    Args:
        model: With the change that is attacked in its weights (or attached).
        bits: 2 to 8.
        group: See :func:`quantise_weight`.

    Raises:
        UserError: Such bits make no sense, the experts of a mixture share one parameter, or see
            :func:`~kvw.training.keeping.weights_kept`.
    """
    if not 2 <= bits <= 8:
        raise UserError(
            "Weights are quantised to 2 to 8 bits.", found=repr(bits), do="give bits=4 or bits=8 for instance"
        )
    shared = [matrix.name for matrix in find_value_matrices(model) if isinstance(matrix, ExpertMatrix)]
    if shared:
        raise UserError(
            "Experts that share one parameter cannot be quantised by this attack.",
            found=shared[0],
            do="quantise the edited checkpoint with a library that knows them, and ask that",
        )
    modules = {name: model.get_submodule(name) for name in linear_names(model, ("language",), None)}
    with weights_kept(model, [f"{name}.weight" for name in modules]):
        for module in modules.values():
            _quantise(module, bits, group)
        yield


def quantise_weight(weight: Tensor, bits: int, group: int = GROUP) -> Tensor:
    """Round to the nearest of 2^bits - 1 values, spaced evenly and symmetric about 0, for each group of weights.

    With s = max |w| / (2^(bits - 1) - 1) over the group: w' = s round(w / s), halves to the even integer. s is kept in
    float32 (float64 for float64 weights); a group of zeros stays zero.

    Args:
        weight: (outputs, inputs), any floating dtype.
        bits: Bits of each integer.
        group: Successive inputs of one output that share s; the last group of a row may be smaller.

    Returns:
        The rounded weight, of the same shape and dtype.
    """
    outputs, inputs = weight.shape
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    groups = pad(exact, (0, -inputs % group)).view(outputs, -1, group)
    steps = groups.abs().amax(dim=-1, keepdim=True) / (2 ** (bits - 1) - 1)
    steps = torch.where(steps > 0, steps, 1.0)
    rounded = torch.round(groups / steps) * steps
    return rounded.view(outputs, -1)[:, :inputs].to(weight.dtype)


def _quantise(module: nn.Module, bits: int, group: int) -> None:
    weight = module.get_parameter("weight").detach()
    # A Conv1D (GPT-2) keeps inputs first.
    turned = not isinstance(module, nn.Linear)
    rounded = quantise_weight(weight.T if turned else weight, bits, group)
    weight.copy_(rounded.T if turned else rounded)
