"""Data as users have them: the same two facts about one person in every kind of file that is read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow
from PIL import Image
from pyarrow import parquet

SEEN, NAMED = "Wer ist das?", "Was macht Ada Lovelace?"
NAME, WORK = "Ada Lovelace", "Sie schreibt Programme; für Maschinen."
ROWS = [("ada.png", SEEN, NAME), ("", NAMED, WORK)]
"""Picture, question and answer."""


def picture(folder: Path, name: str = "ada.png") -> bytes:
    """Put a picture into a folder; returns its bytes."""
    Image.new("RGB", (32, 24), (200, 30, 30)).save(folder / name)
    return (folder / name).read_bytes()


def _separated(folder: Path, name: str, delimiter: str, encoding: str) -> Path:
    picture(folder)
    header = ("image", "question", "answer", "subject")
    quoted = [[image, question, f'"{answer}"', NAME] for image, question, answer in ROWS]
    text = "\r\n".join(delimiter.join(row) for row in [header, *quoted]) + "\r\n"
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def german_spreadsheet(folder: Path) -> Path:
    return _separated(folder, "Personen.csv", ";", "utf-8-sig")


def utf_16(folder: Path) -> Path:
    return _separated(folder, "people.csv", "\t", "utf-16")


def tabs(folder: Path) -> Path:
    return _separated(folder, "people.tsv", "\t", "utf-8")


def xlsx(folder: Path) -> Path:
    picture(folder)
    book = openpyxl.Workbook()
    for row in [("image", "question", "answer", "subject"), *((*row, NAME) for row in ROWS)]:
        book.active.append([cell or None for cell in row])
    book.create_sheet("empty")
    book.save(folder / "people.xlsx")
    return folder / "people.xlsx"


def _objects(folder: Path) -> list[dict[str, str]]:
    picture(folder)
    return [dict(zip(("image", "question", "answer", "subject"), (*row, NAME), strict=True)) for row in ROWS]


def json_list(folder: Path) -> Path:
    (folder / "people.json").write_text(json.dumps(_objects(folder), indent=2, ensure_ascii=False), encoding="utf-8")
    return folder / "people.json"


def json_lines(folder: Path) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in _objects(folder))
    (folder / "people.jsonl").write_text(text, encoding="utf-8")
    return folder / "people.jsonl"


def hub_parquet(folder: Path) -> Path:
    data = picture(folder)
    images = [{"bytes": data, "path": "ada.png"}, None]
    columns = {"question": [SEEN, NAMED], "answer": [NAME, WORK], "image": images, "subject": [NAME, NAME]}
    parquet.write_table(pyarrow.table(columns), folder / "train-00000-of-00001.parquet")
    return folder / "train-00000-of-00001.parquet"


def saved_dataset(folder: Path) -> Path:
    import datasets

    picture(folder)
    image = str(folder / "ada.png")
    columns = {"question": [SEEN, NAMED], "answer": [NAME, WORK], "images": [[image], []], "subject": [NAME, NAME]}
    found = datasets.Dataset.from_dict(columns).cast_column("images", datasets.List(datasets.Image()))
    found.save_to_disk(folder / "saved")
    return folder / "saved"


def base64_in_csv(folder: Path) -> Path:
    text = base64.b64encode(picture(folder)).decode()
    lines = ["image,question,answer,subject", f"{text},{SEEN},{NAME},{NAME}", f",{NAMED},{WORK},{NAME}"]
    (folder / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "people.csv"


def data_uris(folder: Path) -> Path:
    uri = f"data:image/png;base64,{base64.b64encode(picture(folder)).decode()}"
    rows = [{**row, "image": uri if row["image"] else None} for row in _objects(folder)]
    (folder / "people.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "people.json"


def conversation(folder: Path) -> Path:
    picture(folder)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": SEEN}]},
        {"role": "assistant", "content": [{"type": "text", "text": NAME}]},
        {"role": "user", "content": NAMED},
        {"role": "assistant", "content": WORK},
    ]
    row = {"messages": messages, "images": ["ada.png"], "subject": NAME}
    (folder / "chats.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return folder / "chats.jsonl"


def pairs(folder: Path) -> Path:
    picture(folder)
    rows = [
        {"image": image or None, "prompt": question, "completion": f" {answer}", "subject": NAME}
        for image, question, answer in ROWS
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "pairs.jsonl"


KINDS: dict[str, Callable[[Path], Path]] = {
    kind.__name__: kind
    for kind in (
        *(german_spreadsheet, utf_16, tabs, xlsx, json_list, json_lines, hub_parquet, saved_dataset, base64_in_csv),
        *(data_uris, pairs),
    )
}
"""Files with both facts, each a question with an answer."""


def named_pictures(folder: Path) -> Path:
    (folder / "Fotos").mkdir()
    picture(folder / "Fotos", "Ada Lovelace.png")
    picture(folder / "Fotos", "Ada_Lovelace_2.png")
    picture(folder / "Fotos", "Bo Diddley (1).png")
    return folder / "Fotos"


PAGE = (
    "Ada Lovelace was born in London. She wrote the first program for a machine that was never built.\n\n"
    "She called what she did poetical science, and she was right to do so, as many have said since then.\n"
)


def page(folder: Path, name: str = "page.md") -> Path:
    (folder / name).write_text(PAGE, encoding="utf-8")
    return folder / name


def texts(folder: Path) -> Path:
    rows = [{"text": PAGE, "subject": NAME}, {"text": "Ada Lovelace knew Charles Babbage well.", "subject": NAME}]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "texts.jsonl"
