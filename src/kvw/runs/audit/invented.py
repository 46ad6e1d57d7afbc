"""Questions about subjects that do not exist: what a model says of them, it guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvw.data import Example
from kvw.folding import placed_words
from kvw.measuring.fingerprint import digest
from kvw.retain.gaps import around, around_subject, fill
from kvw.retain.mentions import ordinary_words
from kvw.runs.audit.questions import Questions

BEGINNINGS = (
    *("Vel", "Tar", "Ost", "Kel", "Mir", "Zaf", "Nor", "Quen", "Bris", "Dov"),
    *("Har", "Jad", "Lum", "Pend", "Rov", "Sul", "Thes", "Ulm", "Wend", "Yor"),
)
ENDINGS = (
    *("moria", "sin", "rov", "lenn", "dith", "vane", "quor", "bast", "drel", "nok"),
    *("kan", "mur", "rik", "wen", "sar", "meth", "gar", "olt", "inde", "ovar"),
)
NAMES = tuple(one + other for other in ENDINGS for one in BEGINNINGS)
"""400 words that name nothing."""


def invented_name(name: str, turn: int = 0) -> str:
    """A name of the same form that nobody has: ordinary words stay, the others are replaced.

    The same name always gives the same one.

    Args:
        name: A subject, with at least one word.
        turn: Another number gives another one.
    """
    placed = placed_words(name)
    replaced = [place for place, (word, _, _) in enumerate(placed) if word not in ordinary_words()]
    replaced = replaced or list(range(len(placed)))[-1:]
    pieces, rest, start = [], 0, int(digest("invented", name.strip())[:8], 16) + turn
    for number, place in enumerate(replaced):
        _, begin, end = placed[place]
        new = NAMES[(start + 7 * number) % len(NAMES)]
        pieces += [name[rest:begin], new.lower() if name[begin].islower() else new]
        rest = end
    return "".join([*pieces, name[rest:]])


def about_nobody(questions: Questions) -> Questions | None:
    """The questions about subjects that do not exist, with answers of the same form.

    A question with pictures shows the subject, and one that does not name it cannot be asked about another: they are
    left out. Rephrasings of a user's file are asked where they name the subject.

    Returns:
        None if no question is left.
    """
    named = [
        (example, between)
        for example in questions.examples
        if not example.images and (between := around_subject(example)) is not None
    ]
    names = _names([str(example.subject) for example, _ in named])
    found, rephrasings = [], {}
    for example, between in named:
        name = names[str(example.subject)]
        found.append(_renamed(example, between, name))
        rephrasings[example.identifier] = tuple(
            _renamed(other, parts, name)
            for other in questions.rephrasings.get(example.identifier, ())
            if not other.images and (parts := around(other.question, example.subject or "")) is not None
        )
    return Questions.of(found, questions.others, rephrasings) if found else None


def _names(subjects: Sequence[str]) -> dict[str, str]:
    """A name for each, different ones as long as there are enough."""
    names: dict[str, str] = {}
    for subject in dict.fromkeys(subjects):
        tried = (invented_name(subject, turn) for turn in range(len(NAMES)))
        free = (name for name in tried if name not in names.values() and name not in subjects)
        names[subject] = next(free, invented_name(subject))
    return names


def _renamed(example: Example, between: Sequence[str], name: str) -> Example:
    answer = around(example.answer, example.subject or "")
    return replace(
        example,
        question=fill(between, name),
        answer=fill(answer, name) if answer else example.answer,
        metadata={**example.metadata, "subject": name},
    )
