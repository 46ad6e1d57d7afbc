"""What a model says at the positions that predict an answer token, with gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from kvw.edits.prompts import ends_before, prompt_ends
from kvw.models.answer_logits import answer_logits


@dataclass(frozen=True)
class Answers:
    """The answer tokens of a batch, row after row.

    Args:
        logits: What predicts them: (tokens, vocabulary), float32 or better.
        targets: The tokens themselves: (tokens,), int64.
        rows: Which row of the batch each belongs to: (tokens,), int64, ascending.
        count: Rows of the batch.
    """

    logits: Tensor
    targets: Tensor
    rows: Tensor
    count: int

    @property
    def losses(self) -> Tensor:
        """Negative log-likelihood of each answer token: (tokens,), nats."""
        return cross_entropy(self.logits, self.targets, reduction="none")

    @property
    def log_likelihoods(self) -> Tensor:
        """log p(answer | question, images) of each row, the sum over its tokens: (count,), nats."""
        return self.per_row(-self.losses)

    @property
    def lengths(self) -> Tensor:
        """Answer tokens of each row: (count,)."""
        return self.per_row(torch.ones_like(self.logits[:, 0]))

    def per_row(self, values: Tensor) -> Tensor:
        """Sum values of tokens (tokens,) over each row: (count,)."""
        return values.new_zeros(self.count).index_add(0, self.rows, values)


def answers(model: PreTrainedModel, batch: dict[str, Tensor]) -> Answers:
    """Run a model over a batch; logits are made where an answer token is predicted only, if the model can.

    Edits that act by prompt see the question as the prompt, as they do when answers are scored.

    Args:
        model: A model that takes images and text.
        batch: From ``answer_batch``, on the model's device.
    """
    with prompt_ends(model, ends_before(batch["labels"])):
        logits = answer_logits(model, batch)
    return Answers(
        logits=logits.logits.to(torch.promote_types(logits.logits.dtype, torch.float32)),
        targets=logits.targets,
        rows=logits.rows,
        count=len(batch["labels"]),
    )
