"""Texts that begin with the same tokens: these run once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kvw.data.batches import Prepared, to_model
from kvw.data.rendering import common_prefix
from kvw.errors import UserError
from kvw.measuring.engine import run_model
from kvw.models.answer_logits import AnswerLogits, answer_logits
from kvw.models.shared_keys import behind

SHORTEST = 8
"""Fewest tokens that texts must have in common to be put together."""
LEAST = 64
"""Fewest tokens that sharing must save: it takes a forward pass for the beginning, and batches of their own."""


@dataclass(frozen=True)
class Alike:
    """Texts that begin with the same tokens.

    Args:
        rows: Which texts, ascending.
        common: How many tokens they have in common.
    """

    rows: tuple[int, ...]
    common: int


def find_alike(texts: Sequence[Sequence[int]]) -> list[Alike]:
    """Find groups of texts that begin alike; first what saves the most tokens, then the same among the others.

    Args:
        texts: Of each text the tokens that it may share with others.

    Returns:
        Groups without a text in common. Texts in none of them are like too few others.
    """
    ordered = sorted(range(len(texts)), key=lambda row: (tuple(texts[row]), row))
    # Texts with a common beginning are neighbours in this order.
    common = [common_prefix(texts[one], texts[next_]) for one, next_ in pairwise(ordered)]
    common = [tokens if tokens >= SHORTEST else 0 for tokens in common]
    found, waiting = [], [(0, len(common))]
    while waiting:
        begin, end = waiting.pop()
        saved, first, last = _best(common[begin:end])
        if saved < LEAST:
            continue
        first, last = begin + first, begin + last
        found.append(Alike(tuple(sorted(ordered[first : last + 1])), min(common[first:last])))
        waiting += [(begin, first), (last + 1, end)]
    return found


def _best(common: Sequence[int]) -> tuple[int, int, int]:
    """The run of neighbours that saves the most tokens if it shares what all of it has in common.

    Args:
        common: How many tokens each text has in common with the next one.

    Returns:
        How many tokens are saved, and the first and the last text.
    """
    best, rising = (0, 0, 0), [(0, 0)]  # since which text so many tokens are common, fewest first
    for place, tokens in enumerate([*common, 0]):
        since = place
        while rising[-1][1] > tokens:
            since, height = rising.pop()
            best = max(best, (height * (place - since), since, place), key=lambda run: run[0])
        if tokens > rising[-1][1]:
            rising.append((since, tokens))
    return best


def find_alike_examples(prepared: Sequence[Prepared]) -> list[Alike]:
    """Find examples without images that begin alike, see :func:`find_alike`; at least one token before each answer is
    left to every example itself, since it predicts the answer."""
    rows = [row for row, item in enumerate(prepared) if not item.image_count]
    texts = [prepared[row].token_ids[: -len(prepared[row].answer_ids) - 1] for row in rows]
    return [Alike(tuple(rows[row] for row in group.rows), group.common) for group in find_alike(texts)]


class Beginning:
    """Tokens that all rows of several batches begin with; they are run once, with the first batch.

    Args:
        model: It :func:`~kvw.measuring.prefixes.shares_prefixes`, and does not change between the batches.
        tokens: What the rows have in common.
    """

    def __init__(self, model: PreTrainedModel, tokens: Sequence[int]) -> None:
        self._model = model
        self._tokens = torch.tensor([tokens])
        self._cache: DynamicCache | None = None

    def answer_logits(self, batch: dict[str, Tensor]) -> AnswerLogits:
        """What :func:`~kvw.models.answer_logits.answer_logits` says of a batch, up to rounding.

        Args:
            batch: From ``answer_batch``, padded on the right; without images.

        Raises:
            UserError: A row begins with other tokens.
        """
        rows, tokens = batch["input_ids"].shape
        common = self._tokens.shape[1]
        if bool((batch["input_ids"][:, :common] != self._tokens).any()):
            raise UserError(
                "The processor's tokens are not those of the prepared examples.",
                do="use the processor the examples were prepared with",
            )
        if self._cache is None:
            cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
            run_model(self._model, {"input_ids": self._tokens}, cache=cache)
            self._cache = cache
        rest = {name: tensor[:, common:] for name, tensor in batch.items()}
        rest["attention_mask"] = batch["attention_mask"]
        rest["position_ids"] = torch.arange(common, tokens).expand(rows, -1)
        owners = torch.zeros(rows, dtype=torch.int64)
        return answer_logits(self._model, to_model(rest, self._model), behind(self._cache, owners))
