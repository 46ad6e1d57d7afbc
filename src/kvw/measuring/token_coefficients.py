"""Coefficients token by token: where in a question and its answer the knowledge vectors are active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data.batches import Prepared, answer_batch, to_model
from kvw.data.rendering import Processor, adds_special_tokens, unchanged
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.measuring.positions import predicting_positions
from kvw.measuring.source_weights import image_token_ids
from kvw.models.coefficients import Seen, intercepted
from kvw.models.value_matrix import MatrixKey, ValueMatrix

TokenClass = Literal["image", "template", "question", "answer"]
"""``answer``: a position that predicts an answer token, as everywhere in measuring. So the last token of the prompt is
one, and the last of the answer is none and counts as ``template``."""


@dataclass(frozen=True)
class TokenCoefficients:
    """One example as a model reads it.

    Args:
        tokens: The text of every token, images expanded.
        classes: Classes of every token.
        mean: By layer and token, the mean of abs(m) over the knowledge vectors: (tokens,), float64. Of experts:
            over the vectors that the token was routed to.
        weighted: The same as a mean weighted by the accessor of each vector; 0 where no vector has any.
    """

    tokens: tuple[str, ...]
    classes: tuple[TokenClass, ...]
    mean: dict[int, Tensor]
    weighted: dict[int, Tensor]


def token_coefficients(
    model: PreTrainedModel,
    processor: Processor,
    item: Prepared,
    matrices: Sequence[ValueMatrix],
    weights: Mapping[MatrixKey, Tensor],
) -> TokenCoefficients:
    """Read one example with its answer, and look at every position of it.

    Args:
        model: A loaded model.
        processor: Its processor.
        item: The example.
        matrices: The value matrices to look at.
        weights: The accessor of each: (width,).

    Raises:
        UserError: The decoder sees another number of tokens than the processor made.
    """
    batch = answer_batch([item], processor)
    sums = _Sums(batch["input_ids"].shape[1], weights)
    with intercepted(matrices, sums.see), evaluating(model):
        model(**{name: value for name, value in to_model(batch, model).items() if name != "labels"})
    ids = batch["input_ids"][0].tolist()
    return TokenCoefficients(
        tuple(processor.tokenizer.decode([token]) for token in ids),
        token_classes(batch, item, processor, image_token_ids(model)),
        *({layer: _ratio(*found[layer]) for layer in sorted(found)} for found in (sums.plain, sums.weighted)),
    )


class _Sums:
    """Sums of abs(m) by layer and token, plain and weighted by the accessor.

    Args:
        tokens: How many there are.
        weights: The accessor of each value matrix: (width,).
    """

    def __init__(self, tokens: int, weights: Mapping[MatrixKey, Tensor]) -> None:
        self._tokens = tokens
        self._weights = {key: value.double() for key, value in weights.items()}
        # Of each layer (2, tokens), float64: the sums, and what they are divided by. A token that goes to several
        # experts has vectors of all of them.
        self.plain: dict[int, Tensor] = {}
        self.weighted: dict[int, Tensor] = {}

    def see(self, seen: Seen) -> None:
        """Add what value matrices of one layer are given.

        Raises:
            UserError: The decoder sees another number of tokens than the processor made.
        """
        size = seen.coefficients.detach().flatten(0, -2).abs().double().cpu()  # (rows, width)
        rows = torch.arange(len(size)) if seen.tokens is None else seen.tokens.cpu()  # the token of each row
        if seen.tokens is None and len(size) != self._tokens:
            raise UserError(
                f"{seen.matrices[0].name} sees {len(size)} tokens where the prompt has {self._tokens}.",
                do="such models cannot be looked at token by token",
            )
        which = torch.zeros(len(size), dtype=torch.int64) if seen.experts is None else seen.experts.cpu()
        for place, matrix in enumerate(seen.matrices):
            own, layer = which == place, matrix.key.layer
            if own.any():
                weight = self._weights[matrix.key]
                self._add(self.plain, layer, rows[own], size[own].sum(1), matrix.width)
                self._add(self.weighted, layer, rows[own], size[own] @ weight, weight.sum())

    def _add(self, sums: dict[int, Tensor], layer: int, rows: Tensor, values: Tensor, total: float | Tensor) -> None:
        total_of = sums.setdefault(layer, torch.zeros(2, self._tokens, dtype=torch.float64))
        total_of[0].index_add_(0, rows, values)
        total_of[1].index_add_(0, rows, torch.as_tensor(total, dtype=torch.float64).expand(len(rows)))


def token_classes(
    batch: Mapping[str, Tensor], item: Prepared, processor: Processor, image_ids: Sequence[int]
) -> tuple[TokenClass, ...]:
    """The class of every token of a batch of one.

    Args:
        batch: Its ``input_ids`` and ``labels``, both (1, tokens).
        item: The example that it is of.
        processor: The processor.
        image_ids: Placeholders of images, see :func:`kvw.measuring.source_weights.image_token_ids`.
    """
    answer = set(predicting_positions(batch).tolist())
    asked = _question_tokens(item, processor)
    ids, found, place = batch["input_ids"][0].tolist(), list[TokenClass](), 0
    texts = [token for token in item.token_ids if token not in image_ids]
    of_question = [own for token, own in zip(item.token_ids, asked, strict=True) if token not in image_ids]
    for position, token in enumerate(ids):
        if position in answer:
            found.append("answer")
        elif token in image_ids:
            found.append("image")
        else:
            # Tokens that stand for an image beside its placeholders are not among those of the text.
            known = place < len(texts) and token == texts[place]
            found.append("question" if known and of_question[place] else "template")
        place += token not in image_ids and place < len(texts) and token == texts[place]
    return tuple(found)


def _question_tokens(item: Prepared, processor: Processor) -> list[bool]:
    """Whether each token of the text belongs to the question; images are not expanded."""
    begin = item.prompt.rfind(item.example.question)
    end = begin + len(item.example.question)
    tokenizer = processor.tokenizer
    with unchanged(tokenizer):
        wanted = adds_special_tokens(processor, item.prompt)
        encoded = tokenizer(item.full, add_special_tokens=wanted, return_offsets_mapping=True)
    if begin < 0 or tuple(encoded["input_ids"]) != item.token_ids:
        return [False] * len(item.token_ids)
    return [begin < stop and start < end and start < stop for start, stop in encoded["offset_mapping"]]


def _ratio(sums: Tensor, totals: Tensor) -> Tensor:
    return torch.where(totals > 0, sums / totals.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
