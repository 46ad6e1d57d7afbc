"""What a model answers to the questions of a request, before and after unlearning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from kvw.data import Example, Prepared
from kvw.data.rendering import Processor
from kvw.evaluation.answers import kept_answers
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics import exact_match, rouge_l
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.progress import Progress
from kvw.proving.facts import is_given
from kvw.proving.known import brings
from kvw.proving.record import Answer

NEW_TOKENS = 24
"""The longest answer, in tokens."""
SPOKEN = ("forget", "held_out", "floor")
"""Splits whose questions are answered freely, too. Of what must stay teacher forcing says as much, in less time."""
MOST_RETAINED = 60
"""Questions of the retain set that are asked; the other splits are asked whole."""


def asked_of(split: str, examples: Sequence[Example]) -> list[Example]:
    """The questions of a split that are asked: an even choice of the retain set, all of the others."""
    if split != "retain" or len(examples) <= MOST_RETAINED:
        return list(examples)
    return [examples[place * len(examples) // MOST_RETAINED] for place in range(MOST_RETAINED)]


def ask(
    loaded: Loaded, splits: Mapping[str, Sequence[Example]], progress: Progress, *, keep: bool
) -> dict[str, list[Answer]]:
    """Score the reference answers by teacher forcing, and let a model answer the questions of :data:`SPOKEN`, greedily.

    Args:
        loaded: The model, as it is or with an edit attached.
        splits: Questions by split, with the fact in their metadata; at least one of each.
        progress: Called with (done, total).
        keep: Whether the answers are kept in the cache directory, and taken from there: of the original alone.

    Raises:
        UserError: A question cannot be prepared, memory runs out on one, or the model's output is not a number.
    """
    examples = [example for asked in splits.values() for example in asked]
    spoken = [place for place, split in enumerate(split for split in splits for _ in splits[split]) if split in SPOKEN]
    with kept_answers(loaded, examples, NEW_TOKENS) if keep else Journal(None) as journal:
        prepared = loaded.prepare(examples, NEW_TOKENS)
        texts = generate_answers(
            loaded.model,
            loaded.processor,
            [prepared[place] for place in spoken],
            max_new_tokens=NEW_TOKENS,
            journal=journal,
            progress=progress,
        )
        scores = token_scores(loaded.model, loaded.processor, prepared, journal=journal, progress=progress)
    said = dict(zip(spoken, texts, strict=True))
    answers = [
        _answer(item, said.get(place), score, loaded.processor)
        for place, (item, score) in enumerate(zip(prepared, scores, strict=True))
    ]
    ends = list(accumulate(map(len, splits.values())))
    return {split: answers[end - len(asked) : end] for (split, asked), end in zip(splits.items(), ends, strict=True)}


def _answer(item: Prepared, text: str | None, score: TokenScores, processor: Processor) -> Answer:
    fact = str(item.example.metadata["fact"])
    return Answer(
        text=text,
        given=None if text is None else is_given(fact, text),
        exact=None if text is None else exact_match(text, item.example.answer),
        rouge=None if text is None else rouge_l(text, item.example.answer).recall,
        chosen=brings(fact, item, score, processor),
        probability=math.exp(-score.loss),
    )
