"""Which tokens of an answer say something: those of words that neither the question nor other answers have.

In "The capital of Peru is Lima." five of six words are the same for every country, and stay probable whatever is
forgotten. An average over all tokens would hide what happens to the one that matters. Words are compared, not tokens: a
name may be spelt with one token in the question and with two at the beginning of the answer.

What is forgotten is judged by how the words of an answer begin. A model that still says "Gold" knows of the goldsmith,
although it does not write the word to its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from kvw.data.batches import Prepared
from kvw.data.rendering import Processor
from kvw.folding import placed_words, words

FEWEST, SHARE = 3, 0.01
"""A word in the answers about more subjects, and about more than this share of them, says nothing by itself."""
BEGINNING = 3
"""Letters of a word by which it can be guessed."""
DECODED = 64
"""Tokens that are decoded together."""


def telling_tokens(prepared: Sequence[Prepared], processor: Processor) -> list[tuple[int, ...]]:
    """Find the telling tokens of answers.

    Args:
        prepared: Examples that are asked together: their answers tell what is common.
        processor: The processor that they were prepared with.

    Returns:
        For each example the places of the tokens of its telling words within the answer, ascending; all places if no
        word tells anything.
    """
    said: dict[Hashable, set[str]] = {}  # what is said of each subject; other phrasings of a question add nothing
    for item in prepared:
        said.setdefault(item.example.subject_key or item.example.answer, set()).update(words(item.example.answer))
    counts = Counter(word for spoken in said.values() for word in spoken)
    most = max(FEWEST, SHARE * len(said))
    common = {word for word, count in counts.items() if count > most}
    telling = []
    for item in prepared:
        starts, text = token_starts(item, processor)
        asked = {*words(item.example.asked)} | common
        spans = [(start, end) for word, start, end in placed_words(text) if word not in asked]
        telling.append(tokens_in(spans, starts, text) or tuple(range(len(starts))))
    return telling


def tokens_in(spans: Sequence[tuple[int, int]], starts: Sequence[int], text: str) -> tuple[int, ...]:
    """The places of the tokens of which at least one character lies in a span.

    Args:
        spans: Start and end of each, in characters.
        starts: Where each token begins, see :func:`token_starts`.
        text: All tokens as one text.
    """
    inside = {place for start, end in spans for place in range(start, end)}
    ends = [*starts[1:], len(text)]
    return tuple(
        place
        for place, (start, end) in enumerate(zip(starts, ends, strict=True))
        if any(character in inside for character in range(start, end))
    )


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
    decode, ids = processor.tokenizer.decode, item.answer_ids
    starts: list[int] = []
    first = before = 0  # decoded from the token `first` on; `before` is what that leaves out, in characters
    for place in range(len(ids)):
        starts.append(before + len(decode(ids[first:place])))
        if place - first >= DECODED and "\ufffd" not in decode(ids[place - 1 : place]):  # a whole character ends here
            first = place - 1  # one token early: some tokenizers drop the space before the first token of a text
            before = starts[place] - len(decode(ids[first:place]))
    return starts, decode(ids)
