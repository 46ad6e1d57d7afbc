"""Which positions of a batch count."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kvw.data.batches import IGNORED
from kvw.errors import UserError
from kvw.measuring.sources import Positions


def predicting_positions(batch: Mapping[str, Tensor], positions: Positions = "answer") -> Tensor:
    """Flat indices of the positions to measure.

    Position t counts if it is attended to and the token at t + 1 is a target: an answer token (its label is not
    -100), or for ``all`` any attended token. So the last prompt token is in and the last answer token is out.

    Args:
        batch: ``labels`` and, unless nothing is padded, ``attention_mask``, both (batch, tokens).
        positions: Which targets count.

    Returns:
        Indices into the flattened (batch x tokens) grid, ascending: (n,), int64, on the CPU if the labels are there.

    Raises:
        UserError: It is no mapping, ``labels`` is missing or no tensor, or the shapes do not agree.
    """
    if not isinstance(batch, Mapping):
        raise UserError(
            "A batch is no mapping of tensors.",
            found=type(batch).__name__,
            do="give what the model's forward takes by name, and labels; of kvw.batches give itself and no list of it",
        )
    labels = batch.get("labels")
    if not isinstance(labels, Tensor):
        raise UserError(
            "A batch has no 'labels'.",
            found=", ".join(sorted(batch)),
            do="add labels of the shape of input_ids, a tensor with -100 outside the answer",
        )
    attention = batch.get("attention_mask")
    attended = torch.ones_like(labels, dtype=torch.bool) if attention is None else attention.bool()
    if labels.ndim != 2 or attended.shape != labels.shape:
        raise UserError(
            "labels and attention_mask must both have the shape (batch, tokens).",
            found=f"labels {tuple(labels.shape)}, attention_mask {tuple(attended.shape)}",
            do="give both as the processor and the model take them",
        )
    attended = attended.to(labels.device)
    target = attended if positions == "all" else labels != IGNORED
    predicts = torch.zeros_like(attended)
    predicts[:, :-1] = target[:, 1:] & attended[:, :-1]
    return predicts.flatten().nonzero().squeeze(1)
