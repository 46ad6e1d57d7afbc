"""Attack: store the unlearned model in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.training.keeping import PutOn, weights_kept

STORED = (torch.bfloat16, torch.float16)


@contextmanager
def rounded(model: PreTrainedModel, dtype: torch.dtype, put_on: PutOn | None = None) -> Iterator[None]:
    """Round all weights to a 16-bit dtype, put the change on, and round again, for the length of the block.

    That is what folding an edit into a checkpoint of that dtype gives: W' = round(round(W) T), whose part that
    survives is :func:`kvw.edits.surviving.surviving_shares` with the same dtype. Only what is stored is rounded; the
    model computes in its own dtype, so a model that is held in 16 bits already is no more than folded.

    Args:
        model: Not yet edited.
        dtype: ``torch.bfloat16`` or ``torch.float16``.
        put_on: What unlearning has made; None for none.

    Raises:
        UserError: It is another dtype, a weight is too large for it, or see
            :func:`~kvw.training.keeping.weights_kept`.
    """
    if dtype not in STORED:
        raise UserError("Weights are rounded to 16 bits.", found=str(dtype), do="use torch.bfloat16 or torch.float16")
    with weights_kept(model):
        _round(model, dtype)
        with put_on(model) if put_on else nullcontext():
            _round(model, dtype)
            yield


def _round(model: PreTrainedModel, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if float(parameter.abs().max()) > largest:
                raise UserError(
                    f"{name} does not fit into {dtype}.",
                    found=f"{float(parameter.abs().max()):g}",
                    do="leave this attack out: the model is not made for this type of number",
                )
            parameter.copy_(parameter.to(dtype))
