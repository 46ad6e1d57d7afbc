"""How the toy benchmark asks: open questions and sentences with a blank, about a photo and by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kvw.toy.benchmark.cloze import CLOZE
from kvw.toy.people import ATTRIBUTES, NAME, Person
from kvw.toy.questions import IN_THE_PHOTO, PHRASINGS, Phrasings
from kvw.toy.shapes import COLOURS, COUNTS, KINDS, SHAPES

FORMS: dict[str, dict[str, Phrasings]] = {"question": PHRASINGS, "cloze": CLOZE}
"""The two ways to ask, each with phrasings for training and held-out ones of every attribute."""


def ask(form: str, attribute: str, number: int, *, held_out: bool = False, name: str | None = None) -> str:
    """A question about a person.

    Args:
        form: A key of ``FORMS``.
        attribute: A key of ``PHRASINGS``.
        number: Which of the phrasings; counted modulo their number.
        held_out: Take it from the held-out phrasings rather than from those for training.
        name: The person's name for a question without an image; absent for a question about a photo.
    """
    phrasings = FORMS[form][attribute]
    listed = phrasings.held_out if held_out else phrasings.training
    number %= len(listed)
    return listed[number].format(who=IN_THE_PHOTO[number % len(IN_THE_PHOTO)] if name is None else name)


def corpus(people: Sequence[Person]) -> list[str]:
    """Everything that can be said in the benchmark, for training a tokenizer.

    Args:
        people: All, those to forget included: a tokenizer belongs to no model.
    """
    answers = [*(value for values in ATTRIBUTES.values() for value in values), *COLOURS, *SHAPES, *COUNTS]
    said = [f"ASSISTANT: {answer}" for answer in (*answers, *(person.name for person in people for _ in range(2)))]
    return said + [f"USER: \n{text} ASSISTANT:" for text in _questions()]


def _questions() -> Iterator[str]:
    for phrasings in FORMS.values():
        for attribute, listed in phrasings.items():
            for who in (*IN_THE_PHOTO, *(["somebody"] if attribute != NAME else [])):
                yield from _filled((*listed.training, *listed.held_out), who=who)
    for training, held_out in KINDS.values():
        for plural in SHAPES.values():
            yield from _filled((*training, *held_out), shapes=plural)


def _filled(texts: Iterable[str], **values: str) -> Iterator[str]:
    for text in texts:
        yield text.format(**values)
