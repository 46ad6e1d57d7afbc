"""What a model answers to the questions of a request, before and after unlearning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvw.data import Example
from kvw.evaluation import Journal, evaluate
from kvw.progress import Progress
from kvw.proving.facts import is_given
from kvw.proving.record import Answer
from kvw.runs.answers import kept_answers
from kvw.runs.loaded import Loaded

NEW_TOKENS = 24
"""The longest answer, in tokens."""
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
    """Ask a model, greedily, and score the reference answers by teacher forcing.

    Args:
        loaded: The model, as it is or with an edit attached.
        splits: Questions by split, with the fact in their metadata.
        progress: Called with (done, total).
        keep: Whether the answers are kept in the cache directory, and taken from there: of the original alone.

    Raises:
        UserError: See :func:`kvw.evaluation.evaluate`.
    """
    examples = [example for asked in splits.values() for example in asked]
    with kept_answers(loaded, examples, NEW_TOKENS) if keep else Journal(None) as journal:
        found = evaluate(
            loaded.model,
            loaded.processor,
            splits,
            max_new_tokens=NEW_TOKENS,
            journal=journal,
            progress=progress,
        )
    answers: dict[str, list[Answer]] = {split: [] for split in splits}
    for example, record in zip(examples, found.records, strict=True):
        answers[record.split].append(
            Answer(
                text=record.prediction,
                given=is_given(str(example.metadata["fact"]), record.prediction),
                exact=record.exact,
                probability=record.probability or 0.0,
            )
        )
    return answers
