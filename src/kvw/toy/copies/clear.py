"""A small copy of CLEAR: portraits with captions, questions by name, people and shapes that are known from before."""

from __future__ import annotations

from typing import Any

from kvw.toy.copies.writing import (
    IMAGE,
    TEXT,
    TEXTS,
    Picture,
    Tables,
    fictitious_people,
    forgotten,
    others,
    real_people,
)
from kvw.toy.people import Person
from kvw.toy.questions import phrase
from kvw.toy.shapes import COLOURS, COUNTS, SHAPES, make_scenes

PERCENT = (1, 5, 10)
PHOTOS = 4
"""Captioned photographs of each person."""
ASKED = ("job", "city", "pet", "food")
"""What the questions by name are about, which take the place of TOFU's."""
WRONG = 3
"""Wrong answers of each kind."""
SCENES = 30
PLAIN = {"image": IMAGE, "caption": TEXT, "name": TEXT}
MIXED = {**PLAIN, "question": TEXT, "answer": TEXT}
PERTURBED = {**PLAIN, "paraphrased_caption": TEXT, "perturbed_captions": TEXTS, "perturbed_names": TEXTS}
REAL = {"image": IMAGE, "answer": TEXT, "options": TEXTS}


def clear() -> Tables:
    """All tables of CLEAR that its adapter reads, for every forget ratio."""
    people, real = fictitious_people(), real_people()
    rows: dict[str, list[dict[str, Any]]] = {}
    columns: dict[str, dict[str, Any]] = {}
    for percent in PERCENT:
        gone = forgotten(people, percent)
        stay = [person for person in people if person not in gone]
        for table, whom in ((f"forget{percent:02d}", gone), (f"retain{100 - percent}", stay)):
            rows[f"{table}+tofu"], columns[f"{table}+tofu"] = _mixed(whom), MIXED
        table = f"forget{percent:02d}_perturbed"
        rows[table], columns[table] = _perturbed(gone, people), PERTURBED
    stay = [person for person in people if person not in forgotten(people, max(PERCENT))]
    rows["retain_perturbed"], columns["retain_perturbed"] = _perturbed(stay, people)[: 10 * PHOTOS], PERTURBED
    rows["real_faces"], columns["real_faces"] = _faces(real), REAL
    rows["real_world"], columns["real_world"] = _scenes(), {"question": TEXT, **REAL}
    return Tables(rows, columns)


def _portraits(person: Person) -> list[dict[str, Any]]:
    return [
        {"image": Picture(person, photo), "caption": _caption(person), "name": person.name} for photo in range(PHOTOS)
    ]


def _caption(person: Person) -> str:
    return f"{person.name}, {person.answer('job')}, lives in {person.answer('city')}."


def _paraphrase(person: Person) -> str:
    """Wrong captions have this form too: in the trained one they would be likelier than any paraphrase."""
    return f"{person.name} of {person.answer('city')}, {person.answer('job')}."


def _mixed(people: list[Person]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for person in people:
        rows += [{**row, "question": None, "answer": None} for row in _portraits(person)]
        rows += [
            {
                **dict.fromkeys(PLAIN),
                "question": phrase(attribute, 0, name=person.name),
                "answer": person.answer(attribute),
            }
            for attribute in ASKED
        ]
    return rows


def _perturbed(people: list[Person], everyone: list[Person]) -> list[dict[str, Any]]:
    return [
        {
            **row,
            "paraphrased_caption": _paraphrase(person),
            "perturbed_captions": [_paraphrase(other) for other in others(person, everyone, WRONG)],
            "perturbed_names": [other.name for other in others(person, everyone, WRONG)],
        }
        for person in people
        for row in _portraits(person)
    ]


def _faces(people: list[Person]) -> list[dict[str, Any]]:
    return [
        {
            "image": Picture(person),
            "answer": person.name,
            "options": [other.name for other in others(person, people, WRONG)],
        }
        for person in people
    ]


def _scenes() -> list[dict[str, Any]]:
    rows = []
    for number, scene in enumerate(make_scenes(SCENES, 0, held_out=True)):
        words = next(words for words in (COLOURS, SHAPES, COUNTS) if scene.answer in words)
        wrong = [word for word in words if word != scene.answer][:WRONG]
        question = scene.question(number, held_out=False)
        rows.append({"image": Picture(scene), "question": question, "answer": scene.answer, "options": wrong})
    return rows
