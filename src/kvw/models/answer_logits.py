"""What a model says where an answer token is predicted, and nowhere else if it can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import Cache, PreTrainedModel

from kvw.data.batches import IGNORED
from kvw.models.forward_names import cache_name, takes


@dataclass(frozen=True)
class AnswerLogits:
    """The answer tokens of a batch, row after row.

    Args:
        logits: What predicts them: (tokens, vocabulary), in the model's dtype.
        targets: The tokens themselves: (tokens,), int64.
        rows: Which row of the batch each belongs to: (tokens,), int64, ascending.
    """

    logits: Tensor
    targets: Tensor
    rows: Tensor


def answer_logits(model: PreTrainedModel, batch: dict[str, Tensor], cache: Cache | None = None) -> AnswerLogits:
    """Run a model over a batch; logits are made where an answer token is predicted only, if the model can.

    Args:
        model: A model that takes the batch; gradients as the caller has them.
        batch: From ``answer_batch``, where the model takes its input (``to_model``): its input and ``labels`` (batch,
            tokens), -100 outside the answer, not shifted. The first column is not predicted by anything.
        cache: Keys and values of what comes before the batch; None if nothing does.
    """
    labels = batch["labels"][:, 1:]
    predicting = labels != IGNORED
    # One set of columns for all rows is the form of selection that every release of transformers supports.
    columns = predicting.any(dim=0).nonzero().flatten()
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
    if cache is not None:
        inputs[cache_name(model)] = cache
    if takes(model, "logits_to_keep"):
        logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, columns]
    wanted = predicting[:, columns].to(logits.device)
    return AnswerLogits(logits[wanted], labels[:, columns].to(logits.device)[wanted], wanted.nonzero()[:, 0])
