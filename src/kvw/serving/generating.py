"""Generation for several requests at the same time: each gets its tokens as they come, and ends by itself."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from kvw.data import to_model
from kvw.data.rendering import Tokenizer
from kvw.evaluation.generation import decoding
from kvw.measuring.engine import evaluating
from kvw.serving.answer import Answer, Ending
from kvw.serving.answer_text import AnswerText

GREEDY_BELOW = 1e-5
"""Temperatures below this one are 0: logits divided by a smaller one are infinite, and no answer could be drawn."""


@dataclass(frozen=True)
class Decoding:
    """How one answer is generated.

    Args:
        max_new_tokens: The longest answer in tokens, end token included; None for the longest that is allowed.
        temperature: 0 takes the most probable token; above, tokens are drawn.
        top_p: When drawing, only from the most probable tokens that together have this probability.
        seed: Makes drawing repeatable.
        stops: Texts that end the answer.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature < GREEDY_BELOW


class Row:
    """One answer among those that are generated together.

    Attributes:
        over: Whether it has come to its end, and its reader knows.

    Args:
        answer: Where its text goes.
        tokenizer: The model's.
        prompt_tokens: Of its own prompt.
        longest: Most new tokens.
        stops: Texts that end it.
    """

    def __init__(
        self, answer: Answer, tokenizer: Tokenizer, prompt_tokens: int, longest: int, stops: Sequence[str]
    ) -> None:
        self.longest = longest
        self.over = False
        self._answer = answer
        self._text = AnswerText(tokenizer, stops)
        self._prompt_tokens = prompt_tokens

    def take(self, new_ids: Sequence[int], ends: Sequence[int], *, closing: bool) -> bool:
        """Look at all new tokens so far; returns whether the answer is over."""
        if not self.over:
            self._answer.say(self._text.take(new_ids))
            ended = self._text.stopped or new_ids[-1] in ends
            if ended or len(new_ids) >= self.longest or closing or not self._answer.wanted:
                self._answer.say(self._text.finish())
                self._answer.end(Ending("stop" if ended else "length", self._prompt_tokens, len(new_ids)))
                self.over = True
        return self.over


def generate(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    inputs: dict[str, Tensor],
    rows: Sequence[Row],
    how: Decoding,
    closing: threading.Event,
) -> None:
    """Generate answers to a batch of prompts; afterwards every row is over.

    Args:
        model: With the edits of these requests attached.
        tokenizer: The model's.
        inputs: A batch of prompts, padded on the left.
        rows: One for each prompt.
        how: How tokens are chosen; only a single answer can be drawn.
        closing: Ends all of them at the next token.
    """
    if not how.greedy:
        # This thread alone draws, and it draws for one request at a time: the global generator is this request's.
        torch.manual_seed(secrets.randbits(63) if how.seed is None else how.seed)
    temperature = 0.0 if how.greedy else how.temperature
    longest = max(row.longest for row in rows)
    with evaluating(model), decoding(model, tokenizer, longest, temperature=temperature, top_p=how.top_p):
        settings: Any = model.generation_config
        ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        watch = _Watch(rows, inputs["input_ids"].shape[1], ends, closing)
        model.generate(  # type: ignore[operator]
            **to_model(inputs, model), generation_config=settings, stopping_criteria=StoppingCriteriaList([watch])
        )


class _Watch(StoppingCriteria):
    """Sees every new token, hands it on, and says which answers are over."""

    def __init__(self, rows: Sequence[Row], prompt_tokens: int, ends: Sequence[int], closing: threading.Event) -> None:
        self._rows = rows
        self._prompt_tokens = prompt_tokens
        self._ends = ends
        self._closing = closing

    def __call__(self, input_ids: Tensor, scores: Tensor, **options: Any) -> Tensor:
        new_ids, closing = input_ids[:, self._prompt_tokens :].tolist(), self._closing.is_set()
        over = [row.take(ids, self._ends, closing=closing) for row, ids in zip(self._rows, new_ids, strict=True)]
        return torch.tensor(over, dtype=torch.bool, device=input_ids.device)
