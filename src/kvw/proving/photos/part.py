"""Requests to forget people who are known by their photos and by their names."""

from __future__ import annotations

from collections.abc import Sequence

from kvw import made
from kvw.data import Example
from kvw.models.checkpoint import Checkpoint
from kvw.progress import Reporter
from kvw.proving.photos.people import FACTS, NEW_PHOTOS, PHOTOS, by_name, by_photo, everyone, group, strangers
from kvw.proving.requests import HALVES, Half, Part, Request, ordering
from kvw.toy.people import NAME, Person

MEMBERS = ((0,), (1,), (2,), (3,), (0, 1), (1, 2, 3))
"""Whom of the group of a half each request forgets."""
SHOWN, SAID = 3, 3
"""In how many photos each fact is to be forgotten, and in how many phrasings by name."""


def photo_requests(half: Half) -> list[Request]:
    """The requests of a half: each of its group alone, and some together.

    What must stay is about people whom the planted model and the gold model of the half have both seen: every second
    of them is named by the user, the others are in neither file.
    """
    members = group(half)
    return [_request(half, number, [members[place] for place in places]) for number, places in enumerate(MEMBERS)]


def _request(half: Half, number: int, people: Sequence[Person]) -> Request:
    forgotten = {person.index for person in group(half)}
    names = sorted(person.name for person in people)
    others = sorted(
        (person for person in everyone() if person.index not in forgotten),
        key=lambda person: ordering(*names, person.name),
    )
    return Request(
        half,
        number,
        tuple(person.name for person in people),
        {
            "forget": [one for person in people for one in _of_the_user(person)],
            "held_out": [one for person in people for one in new_views(person)],
            "retain": [one for person in others[::2] for one in _once(person)],
            "unused": [one for person in others[1::2] for one in _once(person)],
            "floor": [
                one
                for place, person in enumerate(people)
                for one in _once(strangers()[(number + place) % len(strangers())], said_of=person)
            ],
        },
    )


def _of_the_user(person: Person) -> list[Example]:
    """What a user would give: every fact in some photos and in some phrasings by name, as the model was taught."""
    shown = [by_photo(person, fact, photo, photo + place) for place, fact in _facts(NAME) for photo in range(SHOWN)]
    return shown + [by_name(person, fact, way + place) for place, fact in _facts() for way in range(SAID)]


def new_views(person: Person) -> list[Example]:
    """The same facts in photos and phrasings that no model has seen."""
    shown = [
        by_photo(person, fact, PHOTOS + (place + way) % NEW_PHOTOS, way, held_out=True)
        for place, fact in _facts(NAME)
        for way in range(2)
    ]
    return shown + [by_name(person, fact, way, held_out=True) for _, fact in _facts() for way in range(2)]


def _once(person: Person, said_of: Person | None = None) -> list[Example]:
    """Every fact in one photo and once by name; with the answers of somebody else, if one is given."""
    answers = said_of or person
    shown = [
        by_photo(person, fact, (place + person.index) % PHOTOS, place + person.index, answer=answers.answer(fact))
        for place, fact in _facts(NAME)
    ]
    return shown + [
        by_name(person, fact, place + person.index, answer=answers.answer(fact)) for place, fact in _facts()
    ]


def _facts(*before: str) -> list[tuple[int, str]]:
    return list(enumerate((*before, *FACTS)))


def _requests(half: Half, checkpoint: Checkpoint, reporter: Reporter) -> list[Request]:
    return photo_requests(half)  # the same for every model


_, *_GOLD = made.PHOTOS
PHOTOGRAPHED = Part("photos", made.PHOTOS[0], _requests, dict(zip(HALVES, _GOLD, strict=True)))
