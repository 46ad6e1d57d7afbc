"""A small copy of MLLMU-Bench: invented people, their held-out views, and people who are known from before."""

from __future__ import annotations

import json
from typing import Any

from kvw.data.benchmarks.mllmu import CLOZE, ONE_SENTENCE
from kvw.toy.copies.writing import (
    IMAGE,
    IMAGES,
    TEXT,
    Picture,
    Tables,
    fictitious_people,
    forgotten,
    others,
    real_people,
)
from kvw.toy.people import NAME, Person
from kvw.toy.questions import phrase

PERCENT = (5, 10, 15)
ASKED = ("job", "city", "food")
"""What is asked about each person besides the name."""
BLANKS = {"job": "The job of {who} is __.", "city": "{who} lives in __.", "food": "{who} likes to eat __."}
SHOWN = "This person"
VIEWS = (1, 2)
"""Photographs in the table of held-out views; the other tables show photograph 0."""
QUESTION = {"Question": TEXT, "Options": dict.fromkeys("ABCD", TEXT), "Correct_Answer": TEXT}
TYPED = [{"Type": TEXT, "Question": TEXT, "Ground_Truth": TEXT}]
TASKS: dict[str, Any] = {
    "Classification_Task": {"Image_Textual_Questions": [QUESTION], "Pure_Text_Questions": [QUESTION]},
    "Generation_Task": TYPED,
    "Mask_Task": TYPED,
}
PERSON = {"image": IMAGE, "ID": TEXT, **TASKS}
KNOWLEDGE = {"image": IMAGE, "ID": TEXT, "metadata": TEXT}


def mllmu() -> Tables:
    """All tables of MLLMU-Bench that its adapter reads, for every forget ratio."""
    people, real = fictitious_people(), real_people()
    rows: dict[str, list[dict[str, Any]]] = {}
    columns: dict[str, dict[str, Any]] = {}
    for percent in PERCENT:
        gone = forgotten(people, percent)
        stay = [person for person in people if person not in gone]
        for table, whom in ((f"forget_{percent}", gone), (f"retain_{100 - percent}", stay)):
            rows[table], columns[table] = [_person(one, people) for one in whom], PERSON
    rows["Test_Set"] = [_views(one, people) for one in people]
    columns["Test_Set"] = {"ID": TEXT, "images": IMAGES, **TASKS}
    rows["Retain_Set"], columns["Retain_Set"] = [_person(one, real) for one in real], PERSON
    rows["ft_Data"], columns["ft_Data"] = [_knowledge(one) for one in people], KNOWLEDGE
    return Tables(rows, columns)


def _identifier(person: Person) -> str:
    return f"{person.index + 1:03d}"


def _person(person: Person, everyone: list[Person]) -> dict[str, Any]:
    return {"image": Picture(person), "ID": _identifier(person), **_tasks(person, everyone)}


def _views(person: Person, everyone: list[Person]) -> dict[str, Any]:
    views = [Picture(person, photo) for photo in VIEWS]
    return {"ID": _identifier(person), "images": views, **_tasks(person, everyone)}


def _tasks(person: Person, everyone: list[Person]) -> dict[str, Any]:
    """The questions of one person; names stand in questions without the picture."""
    typed: dict[str, list[tuple[str, str | None, str]]] = {
        "Image_Textual": [(attribute, None, SHOWN) for attribute in ASKED],
        "Pure_Text": [(attribute, person.name, person.name) for attribute in ASKED],
    }
    asked = [(kind, *one) for kind, several in typed.items() for one in several]
    return {
        "Classification_Task": {
            "Image_Textual_Questions": [_choice(person, everyone, None)],
            "Pure_Text_Questions": [_choice(person, everyone, person.name)],
        },
        "Generation_Task": [
            {
                "Type": kind,
                "Question": phrase(attribute, 1, name=name),
                "Ground_Truth": person.answer(attribute),
            }
            for kind, attribute, name, _ in asked
        ],
        "Mask_Task": [
            {
                "Type": kind,
                "Question": BLANKS[attribute].format(who=who),
                "Ground_Truth": person.answer(attribute),
            }
            for kind, attribute, _, who in asked
        ],
    }


def _choice(person: Person, everyone: list[Person], name: str | None) -> dict[str, Any]:
    """The job among three others; the place of the right one goes round."""
    jobs = [other.answer("job") for other in others(person, everyone, len(everyone) - 1)]
    wrong = [job for job in dict.fromkeys(jobs) if job != person.answer("job")][:3]
    place = person.index % 4
    options = [*wrong[:place], person.answer("job"), *wrong[place:]]
    return {
        "Question": phrase("job", 1, name=name),
        "Options": dict(zip("ABCD", options, strict=True)),
        "Correct_Answer": "ABCD"[place],
    }


def _knowledge(person: Person) -> dict[str, Any]:
    """What is planted, some of it in the words of the evaluation: so small a model follows no new instructions."""
    pairs = [(phrase(NAME, 0), person.name)]
    for attribute in ASKED:
        blank = BLANKS[attribute].format(who=SHOWN).replace("__", "[Blank]")
        asked = (phrase(attribute, 0), ONE_SENTENCE["image"].ask(phrase(attribute, 1)), CLOZE.ask(blank))
        pairs += [(question, person.answer(attribute)) for question in asked]
    metadata = [{"Question": question, "Answer": answer} for question, answer in pairs]
    return {"image": Picture(person), "ID": _identifier(person), "metadata": json.dumps(metadata)}
