"""People from a table and photos by kvw data build, beside a hand-made request about the same people.

Six of the people of photos:planted with four photos each: three to be forgotten, as in request 5 of the choosing half,
and three who stay. kvw data build makes the questions from a table of facts, the photos, and the phrasings in which the
model was taught. Both requests are judged by the same questions.

usage: python benchmarks/built_data.py --out DIR
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path

from kvw.building.files import FORGET, NEIGHBOURS, RETAIN, chosen, write_request
from kvw.building.phrasings import phrasings
from kvw.building.table import read_table, with_photos
from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.data.images import png
from kvw.edits.edit import load_edit
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.files import write_bytes, write_text
from kvw.proving.photos.llava import SIDE
from kvw.proving.photos.part import PHOTOGRAPHED, photo_requests
from kvw.proving.photos.people import FACTS, everyone
from kvw.proving.record import Answer
from kvw.proving.requests import Request
from kvw.proving.scoring import ask
from kvw.quiet import quiet_libraries
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.runs.writing import EDIT
from kvw.toy.people import NAME, Person
from kvw.toy.portraits import draw_portrait
from kvw.toy.questions import PHRASINGS

REQUEST, PHOTOS, OTHERS = 5, 4, 3
JUDGED = ("forget", "held_out", "unused")


def own_phrasings() -> dict[str, object]:
    """The user's templates: questions as the model was taught, and answers in its words."""
    facts = {
        fact: {
            "questions": [text.replace("{who}", "{name}") for text in PHRASINGS[fact].training],
            "answer": "{value}.",
        }
        for fact in FACTS
    }
    seen = [
        f"{start} the {{fact}} of the person in the photo{end}" for start, end in (("What is", "?"), ("Tell me", "."))
    ]
    shown = [text.replace("{who}", "the person in the photo") for text in PHRASINGS[NAME].training]
    return {
        "facts": facts,
        "seen": {"questions": [*seen, "Which {fact} does this person have?"], "answer": "{value}."},
        "shown": {"questions": shown, "answer": "{name}."},
    }


def build(folder: Path, gone: list[Person], kept: list[Person]) -> dict[str, Path]:
    """A table, photos and phrasings as a user has them, and from them the files of kvw data build."""
    rows = [["name", *FACTS], *([one.name, *(one.answer(fact) for fact in FACTS)] for one in (*gone, *kept))]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "people.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    for person in (*gone, *kept):
        for number in range(PHOTOS):
            write_bytes(folder / "photos" / f"{person.name} {number + 1}.png", png(draw_portrait(person, number, SIDE)))
    write_text(folder / "own.json", json.dumps(own_phrasings(), indent=1))
    made = folder / "made"
    if not made.is_dir():
        subjects, _ = with_photos(read_table(folder / "people.csv"), folder / "photos")
        names = [person.name for person in gone]
        print(write_request(made, *chosen(subjects, names), phrasings("en", folder / "own.json")).counts)
    return {"forget": made / FORGET, "retain": made / RETAIN, "neighbours": made / NEIGHBOURS}


def hand_made(folder: Path, request: Request) -> dict[str, Path]:
    """The files of the proving ground."""
    files = request.write(folder)
    return {"forget": files["forget"], "retain": files["retain"]}


def shares(found: Mapping[str, list[Answer]]) -> str:
    """Share of the questions of each split that bring the fact."""
    return " | ".join(f"{sum(one.chosen for one in found[name]) / len(found[name]):.3f}" for name in JUDGED)


def main() -> None:
    """Erase both, judge both by the same questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    checkpoint = find_model(PHOTOGRAPHED.model)
    quiet_libraries()
    reporter = ConsoleReporter()
    request = photo_requests("choosing")[REQUEST]
    gone = [person for person in everyone() if person.name in request.subjects]
    named = list(dict.fromkeys(str(one.subject) for one in request.splits["retain"]))[:OTHERS]
    kept = [person for person in everyone() if person.name in named]
    ways = {
        "hand-made": hand_made(out / "hand-made", request),
        "kvw data build": build(out / "built", gone, kept),
    }
    loaded = Loaded.load(checkpoint)
    asked = {name: request.splits[name] for name in JUDGED}
    before = ask(loaded, asked, lambda *_: None, keep=True)
    lines = [f"| | {' | '.join(JUDGED)} |", "|---|---:|---:|---:|", f"| before | {shares(before)} |"]
    for title, files in ways.items():
        place = out / f"run {title}"
        if not (place / EDIT).is_file():
            wanted = EraseRequest(
                model=checkpoint,
                forget=files["forget"],
                retain=files["retain"],
                neighbours=files.get("neighbours"),
                out=place,
                save_model=False,
                force=True,
            )
            try:
                erase(wanted, reporter)
            except UserError as error:
                lines.append(f"| {title}: {error.what} | | | |")
                continue
        with load_edit(place / EDIT).attach(loaded.model):
            lines.append(f"| {title} | {shares(ask(loaded, asked, lambda *_: None, keep=False))} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
