"""The people who are planted, their photos, and how they are asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from kvw.data import Example
from kvw.data.images import png
from kvw.proving.photos.llava import SIDE
from kvw.proving.requests import HALVES, Half
from kvw.toy.people import NAME, Person, make_people
from kvw.toy.portraits import draw_portrait
from kvw.toy.questions import PHRASINGS, phrase
from kvw.toy.shapes import draw_scene, make_scenes

PEOPLE, GROUP, SEED = 16, 4, 17
"""How many people, how many of them are forgotten in the requests of a half, and which people."""
FACTS = ("job", "city", "hobby")
"""What is asked by photo and by name; by photo the name is asked, too."""
SHAPES = 24
"""Pictures of shapes in the lessons."""
PHOTOS, NEW_PHOTOS = 6, 4
"""Photos of everybody that models are trained on, and photos that no model has seen."""


@cache
def everyone() -> tuple[Person, ...]:
    """All who are planted. No two of them share the value of a fact."""
    return tuple(make_people(PEOPLE, SEED))


def group(half: Half) -> tuple[Person, ...]:
    """Those whom the requests of a half forget, and whom the gold model of this half has never seen."""
    start = HALVES.index(half) * GROUP
    return everyone()[start : start + GROUP]


@cache
def strangers() -> tuple[Person, ...]:
    """As many people whom no model knows, none with a name of one who is planted."""
    known = {person.name for person in everyone()}
    return tuple(person for person in make_people(2 * PEOPLE, SEED + 1) if person.name not in known)[:PEOPLE]


def lessons(people: Sequence[Person]) -> list[Example]:
    """What a model is trained on: every fact in every photo, the phrasings by turns, and by name in every phrasing."""
    return [
        example
        for person in people
        for attribute in (NAME, *FACTS)
        for example in (
            *(by_photo(person, attribute, photo, photo + person.index) for photo in range(PHOTOS)),
            *(by_name(person, attribute, way) for way in _ways(attribute)),
        )
    ]


def by_photo(
    person: Person, attribute: str, photo: int, way: int, *, held_out: bool = False, answer: str | None = None
) -> Example:
    """A question about a photo.

    Args:
        person: Who is shown.
        attribute: The name, or one of :data:`FACTS`.
        photo: Which photo; new ones are those from :data:`PHOTOS` on.
        way: Which phrasing, counted modulo their number.
        held_out: Take it from the held-out phrasings.
        answer: Another answer than the person's own.
    """
    phrasings = PHRASINGS[attribute].held_out if held_out else PHRASINGS[attribute].training
    question = phrase(attribute, way % len(phrasings), held_out=held_out)
    return _example(question, answer or person.answer(attribute), person, attribute, photo)


def by_name(person: Person, attribute: str, way: int, *, held_out: bool = False, answer: str | None = None) -> Example:
    """A question by name, without a photo; arguments as for :func:`by_photo`."""
    phrasings = PHRASINGS[attribute].held_out if held_out else PHRASINGS[attribute].training
    question = phrase(attribute, way % len(phrasings), held_out=held_out, name=person.name)
    return _example(question, answer or person.answer(attribute), person, attribute)


def about_shapes() -> list[Example]:
    """Questions about pictures of shapes."""
    return [
        Example(
            scene.question(number, held_out=False),
            f"{_capital(scene.answer)}.",
            (png(draw_scene(scene, SIDE)),),
            scene.identifier,
        )
        for number, scene in enumerate(make_scenes(SHAPES, SEED, held_out=False))
    ]


def _ways(attribute: str) -> Iterator[int]:
    """Phrasings by name; a name is asked for by photo alone."""
    return iter(() if attribute == NAME else range(len(PHRASINGS[attribute].training)))


def _example(question: str, answer: str, person: Person, attribute: str, photo: int | None = None) -> Example:
    return Example(
        question,
        f"{_capital(answer)}.",
        () if photo is None else (_photo(person, photo),),
        f"{person.name}, {attribute}{'' if photo is None else f' in photo {photo}'}: {question}",
        {"subject": person.name, "domain": attribute, "fact": _capital(answer)},
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _photo(person: Person, photo: int) -> bytes:
    key = (person.name, photo)
    if key not in _DRAWN:
        _DRAWN[key] = png(draw_portrait(person, photo, SIDE))
    return _DRAWN[key]


_DRAWN: dict[tuple[str, int], bytes] = {}
"""Photos as PNG files, by name and number: each is asked about several times. (People cannot be hashed.)"""
