"""Folders as users have them, each with the command lines, two at most, from it to a finished run.

Every folder has what is to be forgotten about one person and what must stay of others, in the form and under the names
that such a folder has. ``MODEL`` stands for the model.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import openpyxl
import pyarrow
from PIL import Image
from pyarrow import parquet

WHO, OTHERS = ["Mira Holt"], ["Tom Ekker", "Lena Ruiz", "Abel Sands", "Ines Falk", "Piet Vos"]
JOBS = dict(zip([*WHO, *OTHERS], ("baker", "pilot", "tailor", "judge", "miner", "clerk"), strict=True))
FIXED = ["--set", "mu=30", "--write-damaged", "--no-model", "--eval-limit", "2", "--max-new-tokens", "2"]
"""The strength is not looked for: these models are random."""
Row = tuple[str, str, str, str]
"""Photo, question, answer, subject."""


def picture(path: Path, person: str) -> bytes:
    """Write a picture of one colour; returns its bytes."""
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (32, 24), tuple(37 * len(person) * k % 256 for k in (1, 2, 3))).save(path)
    return path.read_bytes()


def rows(people: Iterable[str], ways: Sequence[str], folder: Path, photos: str = "photos") -> list[Row]:
    """Questions by photo, and one by name for each person."""
    found = []
    for person in people:
        name = f"{photos}/{person.split()[0].lower()}.png"
        picture(folder / name, person)
        found += [(name, way, f"{person} is a {JOBS[person]}.", person) for way in ways]
        found.append(("", f"What does {person} do?", f"{person} is a {JOBS[person]}.", person))
    return found


ENGLISH = ("What does this person do?", "Which job has the person shown here?")
GERMAN = ("Was macht diese Person?", "Welchen Beruf hat sie?")


def erase(forget: str, retain: str, *options: str) -> list[str]:
    """The command line of a run."""
    return ["erase", "MODEL", "--forget", forget, "--retain", retain, *options, *FIXED, "--out", "run"]


def _both(write: Callable[[Path, list[Row]], None], folder: Path, names: tuple[str, str], ways: Sequence[str]) -> None:
    for name, people in zip(names, (WHO, OTHERS), strict=True):
        write(folder / name, rows(people, ways, folder))


def _csv(path: Path, header: Sequence[str], found: Iterable[Sequence[str]], delimiter: str, encoding: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header, *found])
    path.write_bytes(text.getvalue().encode(encoding))


def german_spreadsheet(folder: Path) -> list[list[str]]:
    """Semicolons, a BOM and German names of columns."""
    header = ("Foto", "Frage", "Antwort", "Wer")
    _both(lambda p, r: _csv(p, header, r, ";", "utf-8-sig"), folder, ("Löschen.csv", "Behalten.csv"), GERMAN)
    return [erase("Löschen.csv", "Behalten.csv", "--columns", "image=Foto,question=Frage,answer=Antwort,subject=Wer")]


def excel_unicode_text(folder: Path) -> list[list[str]]:
    """What Excel calls Unicode text: UTF-16 with tabs."""
    header = ("image", "question", "answer", "subject")
    _both(lambda p, r: _csv(p, header, r, "\t", "utf-16"), folder, ("remove.txt.csv", "keep.csv"), ENGLISH)
    return [erase("remove.txt.csv", "keep.csv")]


def workbook(folder: Path) -> list[list[str]]:
    """XLSX whose picture column is called img."""

    def write(path: Path, found: list[Row]) -> None:
        book = openpyxl.Workbook()
        for row in [("img", "q", "a", "person"), *found]:
            book.active.append([cell or None for cell in row])
        book.save(path)

    _both(write, folder, ("request 12.xlsx", "staff.xlsx"), ENGLISH)
    return [erase("request 12.xlsx", "staff.xlsx", "--columns", "image=img,question=q,answer=a,subject=person")]


def _jsonl(path: Path, found: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def llava_conversations(folder: Path) -> list[list[str]]:
    """A JSON list as LLaVA is trained on, with a placeholder in the text."""

    def write(path: Path, found: list[Row]) -> None:
        made = [
            {
                **({"image": photo} if photo else {}),
                "conversations": [
                    {"from": "human", "value": f"<image>\n{question}" if photo else question},
                    {"from": "gpt", "value": answer},
                ],
                "subject": subject,
            }
            for photo, question, answer, subject in found
        ]
        path.write_text(json.dumps(made, indent=1), encoding="utf-8")

    _both(write, folder, ("llava_forget.json", "llava_keep.json"), ENGLISH)
    return [erase("llava_forget.json", "llava_keep.json")]


def chat_messages(folder: Path) -> list[list[str]]:
    """Messages of several turns, of which every answer counts."""

    def write(path: Path, found: list[Row]) -> None:
        by_person: dict[str, list[Row]] = {}
        for row in found:
            by_person.setdefault(row[3], []).append(row)
        made = []
        for subject, turns in by_person.items():
            messages = []
            for place, (_, question, answer, _) in enumerate(turns):
                text = [{"type": "text", "text": question}]
                messages.append({"role": "user", "content": [{"type": "image"}, *text] if not place else question})
                messages.append({"role": "assistant", "content": answer})
            made.append({"messages": messages, "images": [turns[0][0]], "subject": subject})
        _jsonl(path, made)

    _both(write, folder, ("chats.jsonl", "others.jsonl"), ENGLISH)
    return [erase("chats.jsonl", "others.jsonl", "--answers", "all")]


def hub_parquet(folder: Path) -> list[list[str]]:
    """Parquet from the hub with image structs."""

    def write(path: Path, found: list[Row]) -> None:
        images = [{"bytes": (folder / p).read_bytes(), "path": None} if p else None for p, *_ in found]
        texts = {name: [row[k] for row in found] for k, name in ((1, "question"), (2, "answer"), (3, "subject"))}
        parquet.write_table(pyarrow.table({"image": images, **texts}), path)

    _both(write, folder, ("forget-00000-of-00001.parquet", "retain-00000-of-00001.parquet"), ENGLISH)
    return [erase("forget-00000-of-00001.parquet", "retain-00000-of-00001.parquet")]


def pictures_in_cells(folder: Path) -> list[list[str]]:
    """CSV with data URIs."""

    def write(path: Path, found: list[Row]) -> None:
        uris = {
            p: f"data:image/png;base64,{base64.b64encode((folder / p).read_bytes()).decode()}" for p, *_ in found if p
        }
        table = [(uris.get(photo, ""), *others) for photo, *others in found]
        _csv(path, ("image", "question", "answer", "subject"), table, ",", "utf-8")

    _both(write, folder, ("export.csv", "rest.csv"), ENGLISH)
    return [erase("export.csv", "rest.csv")]


def completions(folder: Path) -> list[list[str]]:
    """Prompts with completions, without pictures and subjects."""

    def write(path: Path, found: list[Row]) -> None:
        _jsonl(
            path,
            [{"prompt": question, "completion": f" {answer}"} for photo, question, answer, _ in found if not photo],
        )

    _both(write, folder, ("finetune_bad.jsonl", "finetune_good.jsonl"), ENGLISH)
    return [erase("finetune_bad.jsonl", "finetune_good.jsonl")]


def named_photos(folder: Path) -> list[list[str]]:
    """Nothing but photos that are called what they show."""
    for place, people in (("weg", WHO), ("bleibt", OTHERS)):
        for person in people:
            for number in (1, 2):
                picture(folder / place / f"{person} ({number}).png", person)
    return [erase("weg", "bleibt")]


def documents(folder: Path) -> list[list[str]]:
    """A page of text to forget, and one to keep."""
    for name, people in (("page.md", WHO), ("others.txt", OTHERS)):
        text = "\n\n".join(f"{one} is a {JOBS[one]}, and whoever meets {one} is glad of it." for one in people)
        (folder / name).write_text(text, encoding="utf-8")
    return [erase("page.md", "others.txt")]


def page_and_questions(folder: Path) -> list[list[str]]:
    """A page, and questions about it with a subject: what a model may have learnt in other words."""
    documents(folder)
    _jsonl(
        folder / "asked.jsonl",
        [{"question": q, "answer": a, "subject": s} for _, q, a, s in rows(WHO, ENGLISH, folder)],
    )
    return [erase("page.md", "others.txt", "--forget", "asked.jsonl")]


def table_of_people(folder: Path) -> list[list[str]]:
    """A table of facts and a folder of photos for each person: two commands."""
    _csv(folder / "Mitarbeiter.csv", ("Name", "Beruf"), JOBS.items(), ";", "utf-8-sig")
    for person in JOBS:
        picture(folder / "Fotos" / f"{person}.png", person)
    build = ["data", "build", "Mitarbeiter.csv", "--photos", "Fotos", "--name", "Name", "--language", "de"]
    run = erase("made/forget.jsonl", "made/retain.jsonl", "--eval", "held_out=made/held_out.jsonl")
    return [[*build, "--forget", WHO[0], "--out", "made"], run]


FOLDERS: dict[str, Callable[[Path], list[list[str]]]] = {
    one.__name__: one
    for one in (
        *(german_spreadsheet, excel_unicode_text, workbook, llava_conversations, chat_messages, hub_parquet),
        *(pictures_in_cells, completions, named_photos, documents, page_and_questions),
        table_of_people,
    )
}
