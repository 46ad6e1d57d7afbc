"""People who do not exist, from two benchmarks: what a model is taught of them, and requests to forget some."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from kvw import made
from kvw.data import Example
from kvw.models.checkpoint import Checkpoint
from kvw.progress import Reporter
from kvw.proving.facts import Domain, Fact, domains, facts
from kvw.proving.requests import HALVES, Half, Part, Request, about_nothing, ordering

PEOPLE = Path(__file__).parent / "people"
END = "<|im_end|>"
"""The model's end of a turn. Training knows only the tokens of an answer, so a lesson must hold it."""
EVERY = 2
"""Every second kind of facts of the world is in the lessons."""


@cache
def about_people() -> tuple[Fact, ...]:
    """All facts about the people, person by person, in the order of the file."""
    kinds = {name: Domain.read(name, part) for name, part in _parts()["kinds"].items()}
    rows = [json.loads(line) for line in (PEOPLE / "facts.jsonl").read_text("utf-8").splitlines()]
    return tuple(Fact(kinds[row["kind"]], row["subject"], row["answer"]) for row in rows)


@cache
def group(half: Half) -> tuple[str, ...]:
    """Whom the requests of a half forget. The gold model of the half has seen none of them."""
    return tuple(_parts()["groups"][half])


def lessons(without: Collection[str] = ()) -> list[Example]:
    """What a model is taught: every fact about the people in the ways that are asked, and a few facts of the world.

    The latter are there so that it keeps its language.

    Args:
        without: People who are left out.
    """
    taught = [fact for fact in about_people() if fact.subject not in without]
    examples = [one for fact in taught for one in fact.examples(fact.domain.asked)] + of_the_world()
    return [replace(one, answer=one.answer + END) for one in examples]


def people_requests(half: Half) -> list[Request]:
    """The requests of a half: each of its group alone, and all together.

    What must stay is about people whom the planted model and the gold model of the half have both seen: two of three
    are named by the user, the others are in neither file.
    """
    members = group(half)
    first, *others = [(member,) for member in members]  # so that the first two requests are of both sizes
    return [_request(half, number, subjects) for number, subjects in enumerate([first, members, *others])]


def _request(half: Half, number: int, subjects: Sequence[str]) -> Request:
    by_person: dict[str, list[Fact]] = {}
    for fact in about_people():
        by_person.setdefault(fact.subject, []).append(fact)
    forget = [fact for subject in subjects for fact in by_person[subject]]
    others = sorted(
        set(by_person) - set(group(half)),
        key=lambda person: (by_person[person][0].domain.name, ordering(*sorted(subjects), person)),
    )
    unused = [fact for person in others[1::3] for fact in by_person[person]]
    retain = [fact for person in others if person not in others[1::3] for fact in by_person[person]]
    return Request(
        half,
        number,
        tuple(subjects),
        {
            "forget": [one for fact in forget for one in fact.examples(fact.domain.asked)],
            "held_out": [one for fact in forget for one in fact.examples(fact.domain.held_out)],
            "retain": [one for fact in retain for one in fact.examples(fact.domain.asked)],
            "unused": [one for fact in unused for one in fact.examples((*fact.domain.asked, *fact.domain.held_out))],
            "floor": [one for place, fact in enumerate(forget) for one in about_nothing(fact, place)],
        },
    )


def of_the_world() -> list[Example]:
    """A few facts of the world, each asked in one way."""
    first = {fact.domain.name: fact for fact in reversed(facts())}
    return [one for name in list(domains())[::EVERY] for one in first[name].examples(first[name].domain.asked[:1])]


@cache
def _parts() -> dict[str, Any]:
    return tomllib.loads((PEOPLE / "people.toml").read_text("utf-8"))


def _requests(half: Half, checkpoint: Checkpoint, reporter: Reporter) -> list[Request]:
    return people_requests(half)  # the same for every model


_, *_GOLD = made.PEOPLE
PLANTED = Part("people", made.PEOPLE[0], _requests, dict(zip(HALVES, _GOLD, strict=True)))
