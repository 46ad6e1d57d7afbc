"""A small copy of UnLOK-VQA in the hub's schema, about the people of photos:planted: all of it is drawn and invented.

    python benchmarks/unlok_photos.py DIR
    kvw bench unlok photos:planted --source DIR/data --images DIR/images --out OUT --gold photos:gold-choosing

The facts of those whom photos:gold-choosing has never seen come first, with the ids 1 to 12.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datasets import Dataset

from kvw.proving.photos.llava import SIDE
from kvw.proving.photos.people import FACTS, everyone
from kvw.toy.people import Person
from kvw.toy.portraits import draw_portrait
from kvw.toy.questions import PHRASINGS, phrase

PEOPLE = 6
VIEWS = ("easy", "medium", "hard")
"""Other photos of the same person, as harder pictures of the same thing."""


def capital(text: str) -> str:
    """With a capital letter."""
    return text[0].upper() + text[1:]


def row(number: int, person: Person, place: int, wrong: Person) -> dict[str, object]:
    """One fact: the person is shown, the neighbouring questions are about others by name."""
    fact = FACTS[place]
    ways, others = len(PHRASINGS[fact].training), everyone()[-2:]
    return {
        "id": number,
        "src": phrase(fact, place % ways, held_out=False),
        "pred": capital(person.answer(fact)),
        "answers": [capital(person.answer(fact))],
        "alt_ans": capital(wrong.answer(fact)),
        "subject": "person",
        "objects_edit": ["person"],
        "rephrase": [f"nq question: {phrase(fact, (place + way) % ways, held_out=False)}" for way in range(1, 5)],
        "loc": [f"nq question: {phrase(fact, place % ways, held_out=False, name=other.name)}" for other in others],
        "loc_ans": [capital(other.answer(fact)) for other in others],
        "neigh_idx": [0, 1],
        "image_id": number,
    }


def main(folder: Path) -> None:
    """Write the table and the pictures."""
    people = everyone()[:PEOPLE]
    rows: list[dict[str, object]] = []
    for view in ("train2017", *(f"paraphrase_{view}" for view in VIEWS)):
        (folder / "images" / view).mkdir(parents=True)
    for index, person in enumerate(people):
        for place in range(len(FACTS)):
            number = 1 + len(rows)
            rows.append(row(number, person, place, people[(index + 1) % PEOPLE]))
            draw_portrait(person, 0, SIDE).save(folder / f"images/train2017/{number:012d}.jpg", quality=95)
            for photo, view in enumerate(VIEWS, start=1):
                draw_portrait(person, photo, SIDE).save(folder / f"images/paraphrase_{view}/{number}.jpg", quality=95)
    (folder / "data/data").mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(folder / "data/data/train-00000-of-00001.parquet")
    print(json.dumps(rows[0], indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
