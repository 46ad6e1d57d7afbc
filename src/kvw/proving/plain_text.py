"""Ordinary sentences, and how well a model expects them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from transformers import PreTrainedModel

from kvw.data import Example, Prepared
from kvw.data.rendering import Processor
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import token_scores
from kvw.progress import Progress

PLAIN_TEXT = Path(__file__).parent / "world" / "plain_text.txt"


@cache
def plain_text() -> tuple[str, ...]:
    """English sentences, one a line of the file; no retain set of ours holds them."""
    return tuple(PLAIN_TEXT.read_text("utf-8").splitlines())


def perplexity(
    model: PreTrainedModel, processor: Processor, journal: Journal | None = None, progress: Progress | None = None
) -> float:
    """Perplexity of the sentences as plain text, without any prompt.

    exp of the mean negative log probability of all their tokens but the first of each, which nothing predicts.

    Args:
        model: A model that generates text; its mode is restored.
        processor: Its processor.
        journal: Keeps the scores as they come.
        progress: Called with (sentences done, sentences in all).

    Returns:
        At least 1, and finite.

    Raises:
        UserError: Memory runs out on a single sentence, or the model's output is not a number.
    """
    prepared = [_prepared(sentence, processor) for sentence in plain_text()]
    scores = token_scores(model, processor, prepared, journal=journal, progress=progress)
    tokens = [value for each in scores for value in each.log_probabilities]
    return math.exp(min(-math.fsum(tokens) / len(tokens), 700.0))  # exp of more is infinite in float64


def _prepared(sentence: str, processor: Processor) -> Prepared:
    tokens = tuple(processor.tokenizer(sentence, add_special_tokens=False)["input_ids"])
    example = Example(question="", answer=sentence, identifier="plain text")
    return Prepared(example, prompt="", full=sentence, answer_ids=tokens[1:], token_ids=tokens, length=len(tokens))
