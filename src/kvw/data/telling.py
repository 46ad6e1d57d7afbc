"""Which tokens of an answer say something: those that neither the question nor other answers have.

In "The capital of Peru is Lima." six of seven tokens are the same for every country, and stay probable whatever is
forgotten. An average over all tokens would hide what happens to the one that matters.

What is forgotten is judged by how the words of an answer begin. A model that still says "Gold" knows of the goldsmith,
although it does not write the word to its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from kvw.data.batches import Prepared
from kvw.data.rendering import Processor
from kvw.folding import placed_words

FEWEST, SHARE = 3, 0.01
"""A token in the answers about more subjects, and about more than this share of them, says nothing by itself."""
BEGINNING = 3
"""Letters of a word by which it can be guessed."""


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


def beginnings(item: Prepared, places: Sequence[int], processor: Processor) -> tuple[int, ...]:
    """The tokens among some of an answer with which its words begin.

    Args:
        item: A prepared example.
        places: Places of tokens within its answer, ascending.
        processor: The processor that it was prepared with.

    Returns:
        The places without tokens that begin after :data:`BEGINNING` letters of a word: these only spell on. A number is
        no word here: all its tokens stay, because the first digits of years are the same for most. All places if none
        would be left.
    """
    starts, text = token_starts(item, processor)
    spelled = {
        place
        for word, start, end in placed_words(text)
        if not any(map(str.isdigit, word))
        for place in places
        if start + BEGINNING <= starts[place] < end
    }
    return tuple(place for place in places if place not in spelled) or tuple(places)


def token_starts(item: Prepared, processor: Processor) -> tuple[list[int], str]:
    """Where each token of an answer begins, in characters, and the text in which they are counted.

    Args:
        item: A prepared example.
        processor: The processor that it was prepared with.
    """
    decode = processor.tokenizer.decode
    texts = [decode(item.answer_ids[:count]) for count in range(len(item.answer_ids) + 1)]
    return [len(text) for text in texts[:-1]], texts[-1]
