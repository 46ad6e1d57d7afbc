"""Which tokens of an answer say something: those that neither the question nor other answers have.

In "The capital of Peru is Lima." six of seven tokens are the same for every country, and stay probable whatever is
forgotten. An average over all tokens would hide what happens to the one that matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from kvw.data import Prepared
from kvw.data.rendering import Processor

FEWEST, SHARE = 3, 0.01
"""A token in the answers about more subjects, and about more than this share of them, says nothing by itself."""


def telling_tokens(prepared: Sequence[Prepared], processor: Processor) -> list[tuple[int, ...]]:
    """Find the telling tokens of answers.

    Args:
        prepared: Examples that are asked together: their answers tell what is common.
        processor: The processor that they were prepared with.

    Returns:
        For each example the places of its telling tokens within the answer, ascending; all places if no token tells
        anything.
    """
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = processor.tokenizer.decode([token]).strip().casefold()
        return texts[token]

    said: dict[Hashable, set[str]] = {}  # what is said of each subject; other phrasings of a question add nothing
    for item in prepared:
        tokens = said.setdefault(item.example.subject_key or item.example.answer, set())
        tokens.update(map(text, item.answer_ids))
    counts = Counter(token for tokens in said.values() for token in tokens)
    most = max(FEWEST, SHARE * len(said))
    telling = []
    for item in prepared:
        asked = {text(token) for token in item.token_ids[: -len(item.answer_ids)]}
        places = [
            place
            for place, token in enumerate(map(text, item.answer_ids))
            if any(map(str.isalnum, token)) and token not in asked and counts[token] <= most
        ]
        telling.append(tuple(places) or tuple(range(len(item.answer_ids))))
    return telling
