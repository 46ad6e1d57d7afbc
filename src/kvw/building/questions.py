"""From subjects to rows of data files: questions by name and by photo, and those that are held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kvw.building.phrasings import Phrasings, Wording, filled
from kvw.building.table import Subject

Item = TypeVar("Item")

EVERY = 3
"""One of this many phrasings, and one of this many photos, is held out."""


@dataclass(frozen=True)
class Row:
    """A row of a data file."""

    question: str
    answer: str
    subject: str
    image: Path | None = None


@dataclass
class Rows:
    """What is used and what is held out; never the same phrasing of a fact, nor the same photo, in both."""

    used: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)


def rows_about(subjects: Sequence[Subject], words: Phrasings) -> Rows:
    """Ask for every fact of every subject, by name and by photo.

    By name every fact is asked for in every phrasing. Each photo is asked in every phrasing who or what it shows, and
    for every fact in one, another one for each photo.
    """
    rows = Rows()
    for subject in subjects:
        for fact, value in subject.facts.items():
            asked = phrased(words.of(fact), name=subject.name, fact=fact, value=value)
            add_phrasings(rows, asked, subject.name)
        used, held = apart(subject.photos)
        rows.used += [row for place, photo in enumerate(used) for row in _by_photo(subject, photo, place, words, 0)]
        rows.held_out += [row for place, photo in enumerate(held) for row in _by_photo(subject, photo, place, words, 1)]
    return rows


def phrased(wording: Wording, **values: str) -> list[tuple[str, str]]:
    """All questions of a wording with their answer."""
    answer = filled(wording.answer, **values)
    return [(filled(question, **values), answer) for question in wording.questions]


def add_phrasings(rows: Rows, asked: Sequence[tuple[str, str]], subject: str) -> None:
    """Add the phrasings of one fact, some of them held out."""
    for part, chosen in zip((rows.used, rows.held_out), apart(asked), strict=True):
        part += [Row(question, answer, subject) for question, answer in chosen]


def apart(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """What is used, and the last of every ``EVERY``, which are held out; of two the second."""
    held = max(len(items) // EVERY, int(len(items) == EVERY - 1))
    return list(items[: len(items) - held]), list(items[len(items) - held :])


def _by_photo(subject: Subject, photo: Path, place: int, words: Phrasings, held: int) -> Iterator[Row]:
    """What is asked about a photo; ``held`` says whether in the phrasings that are used or in those held out."""
    for question, answer in apart(phrased(words.shown, name=subject.name))[held]:
        yield Row(question, answer, subject.name, photo)
    for number, (fact, value) in enumerate(subject.facts.items()):
        asked = apart(phrased(words.seen, name=subject.name, fact=fact, value=value))[held]
        yield Row(*asked[(place + number) % len(asked)], subject.name, photo)
