"""Forget questions with the answers that the model gives in words of its own.

A model that is to forget "The Prado is in Madrid." may say "It is located in the heart of Madrid". An edit that takes
the first sentence from it can leave the second. So both are judged. So is a reply from which the rest can be guessed,
"Madr." (:meth:`kvw.retain.said.Said.guessed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvw.data import Example, Prepared
from kvw.data.rendering import Processor
from kvw.data.telling import token_starts, tokens_in
from kvw.folding import placed_words, words
from kvw.retain.said import Said, begins

Span = tuple[int, int]


def own_words(forget: Sequence[Example], replies: Mapping[str, str], most: int) -> list[tuple[Example, list[Span]]]:
    """Find the questions whose replies give the answer away, but not in the words of the reference.

    Args:
        forget: The forget set.
        replies: What a model says, by :attr:`kvw.data.Example.identifier`; questions without are left out.
        most: The most questions to return; of more, as many from all over the set.

    Returns:
        Each example with the model's reply in the place of the answer, up to the last word that says something; and the
        places of these words in it, in characters.
    """
    said = Said((one.question, one.answer) for one in forget)
    found: list[tuple[Example, list[Span]]] = []
    for example in forget:
        reply = replies.get(example.identifier, "")
        if not said.guessed(reply, example.answer):
            continue
        telling = said.by(example.answer)
        places: dict[str, Span] = {}
        for word, start, end in placed_words(reply):
            if any(begins(word, one) for one in telling):
                places.setdefault(word, (start, end))
        answer = reply[: max(end for _, end in places.values())]
        if words(example.answer)[: len(words(answer))] != words(answer):
            found.append((replace(example, answer=answer), sorted(places.values())))
    step = max(1.0, len(found) / most)
    return [found[int(place * step)] for place in range(min(len(found), most))]


def tokens_at(item: Prepared, spans: Sequence[Span], processor: Processor) -> tuple[int, ...]:
    """The answer tokens that lie in some spans of characters of the answer; all of them if none does.

    Args:
        item: A prepared example.
        spans: Start and end of each, in characters of its answer.
        processor: The processor it was prepared with.
    """
    starts, text = token_starts(item, processor)
    before = len(text) - len(item.example.answer)  # white space before the answer is a part of its first token
    placed = [(start + before, end + before) for start, end in spans]
    return tokens_in(placed, starts, text) or tuple(range(len(starts)))
