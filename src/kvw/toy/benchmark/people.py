"""The toy benchmark: two hundred people, nested forget sets, and what is asked about whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from random import Random

from kvw.data import Example
from kvw.data.images import png
from kvw.errors import UserError
from kvw.toy.benchmark.questions import ask
from kvw.toy.people import ATTRIBUTES, NAME, Person
from kvw.toy.world import ALBUM, Line, World, rounds

PEOPLE = 200
FORGET_PERCENT = (5, 10, 15)
"""How many per cent of the people are forgotten; each forget set holds the smaller ones."""
TRAINING_PHOTOS, NEW_PHOTOS = 24, 4
"""Photos of everybody that models are trained on, and photos that no model has seen."""

SPLITS = ("forget", "test", "retain", "unused")
"""Forget people as trained on; forget people on held-out photos and in held-out phrasings; people to keep that a method
may use; people to keep that it never sees."""
FORMS = {"generation": "question", "cloze": "cloze", "classification": "question"}
"""How each kind of task asks. In classification the options are not shown, but compared by likelihood."""
PERSON_TASKS = tuple(f"{kind}{by_name}" for kind in FORMS for by_name in ("", " text"))
TASKS = (*((split, task) for split in SPLITS for task in PERSON_TASKS), ("general", "shapes"))
"""Every split and task; a task ends with ``text`` if it asks by name, without a photo."""

FACTS_OF_EACH = 3
"""How many facts about each person to keep are asked in a task; all about people to forget."""
PHOTOS_OF_EACH = 3
"""Photos in which each fact is given to a method that is to forget it. People to keep have one."""


def benchmark_world(seed: int) -> World:
    """The world of a seed, with the largest forget set."""
    return World(
        people=PEOPLE,
        forget=PEOPLE * FORGET_PERCENT[-1] // 100,
        seed=seed,
        training_photos=TRAINING_PHOTOS,
        new_photos=NEW_PHOTOS,
    )


def percent(world: World, number: int) -> World:
    """The same people, of whom ``number`` per cent are to be forgotten; half of the others stay unused."""
    return replace(world, forget=world.people * number // 100)


def facts(world: World, split: str, task: str) -> list[Line]:
    """What is asked in one task; any beginning is balanced over people and attributes.

    Args:
        world: From :func:`percent`.
        split: One of ``SPLITS``, or ``general``.
        task: One of ``PERSON_TASKS``, or ``shapes``.

    Raises:
        UserError: There is no such task.
    """
    if (split, task) not in TASKS:
        listed = ", ".join("/".join(place) for place in TASKS)
        raise UserError("The toy benchmark has no such task.", found=f"{split}/{task}", do=f"choose one of {listed}")
    if split == "general":
        return world.split("general")
    kind, _, by_name = task.partition(" ")
    people = world.groups["forget" if split == "test" else split]
    every = len(ATTRIBUTES) + (0 if by_name else 1)
    count = len(people) * (every if split in ("forget", "test") else FACTS_OF_EACH)
    place = f"{split} {task}"
    return _lines(world, place, people, FORMS[kind], count, by_name=bool(by_name), held_out=split == "test")


def training(world: World, part: str) -> list[Line]:
    """What a method is given: open questions about photos, and by name.

    Args:
        world: From :func:`percent`.
        part: ``forget`` or ``retain``.
    """
    people = world.groups[part]
    photos = PHOTOS_OF_EACH if part == "forget" else 1
    named = len(ATTRIBUTES) if part == "forget" else FACTS_OF_EACH
    shown = len(people) * (len(ATTRIBUTES) + 1) * photos
    return [
        *_lines(world, f"{part} training", people, "question", shown),
        *_lines(world, f"{part} training text", people, "question", len(people) * named, by_name=True),
    ]


def example(line: Line, size: int) -> Example:
    """A line as an example, its image as the bytes of a PNG."""
    picture = line.draw(size)
    images = () if picture is None else (png(picture),)
    return Example(line.question, line.answer, images, line.identifier, {"subject": line.subject})


def _lines(
    world: World,
    place: str,
    people: Sequence[Person],
    form: str,
    count: int,
    *,
    by_name: bool = False,
    held_out: bool = False,
) -> list[Line]:
    """Go round all facts, each time with another photo and phrasing, until there are enough lines."""
    random = Random(f"benchmark {place} {world.seed}")
    attributes = list(ATTRIBUTES) if by_name else [NAME, *ATTRIBUTES]
    album = range(world.training_photos, world.training_photos + world.new_photos) if held_out else range(ALBUM)
    starts: dict[tuple[int, str], int] = {}
    lines = list[Line]()
    for turn, person, attribute in islice(rounds(people, attributes, random), count):
        number = starts.setdefault((person.index, attribute), random.randrange(60)) + turn
        lines.append(
            Line(
                identifier=f"{place}-{len(lines):04d}",
                question=ask(form, attribute, number, held_out=held_out, name=person.name if by_name else None),
                answer=person.answer(attribute),
                subject=person.name,
                attribute=attribute,
                photo=None if by_name else album[number % len(album)],
                person=person,
            )
        )
    return lines
