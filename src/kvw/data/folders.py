"""Which file of a folder holds the examples, and how each kind of file is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from kvw.data.columns import PICTURE_WORDS
from kvw.data.documents import read_text
from kvw.data.json_lists import read_json
from kvw.data.pictures import SUFFIXES
from kvw.data.spreadsheets import read_xlsx
from kvw.data.tables import Row, read_arrow, read_csv, read_parquet
from kvw.errors import UserError
from kvw.folding import folded
from kvw.plural import counted

Reader = Callable[[Path], Iterator[Row]]

READERS: Mapping[str, Reader] = {
    ".jsonl": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".xlsx": read_xlsx,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".txt": read_text,
    ".md": read_text,
}
EXTENSIONS = tuple(READERS)
IN_CELLS = (".csv", ".tsv", ".xlsx")
"""Kinds of file in which a list is written as text."""
DOCUMENTS = (".txt", ".md")
AS_XLSX = "save it as .xlsx, or as CSV UTF-8"
INSTEAD = {
    **dict.fromkeys((".xls", ".xlsm", ".ods", ".numbers"), AS_XLSX),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm"), "save its text as .txt, UTF-8"),
    **dict.fromkeys((".zip", ".tar", ".gz"), "unpack it, and name the file or the folder in it"),
}
"""What to do with kinds of file that are not read."""
METADATA = tuple(f"metadata{extension}" for extension in EXTENSIONS if extension not in DOCUMENTS)
NOT_THE_USERS = ("thumbs.db", "desktop.ini", "readme.md", "license", "license.txt")
WHAT_IS_SHOWN = "Who or what is shown in this picture?"
"""What is asked about the pictures of a folder whose names say what they show."""
CAMERA_WORDS = {*PICTURE_WORDS, "dsc", "dscn", "pxl", "scan", "screenshot"}
NUMBER = re.compile(r"[\s_.-]*(?:\(\d+\)|[\s_.-]\d+)$")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to look at a file or into a folder into messages for the user."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be read.", found=str(error), do="check the path, and who may read it"
        ) from error


def data_file(folder: Path) -> tuple[Path, Reader]:
    """The file of a folder that holds its examples, and how it is read.

    - A file ``metadata.jsonl`` (or of another kind) beside pictures.
    - What ``save_to_disk`` of Hugging Face datasets has written; of several parts all.
    - Only pictures: each shows what its name says, without a number at its end.

    Raises:
        UserError: The folder holds anything else, or cannot be read; the message names it.
    """
    with readable(folder):
        tables = [folder / name for name in METADATA if (folder / name).is_file()]
        if len(tables) > 1:
            listed = ", ".join(path.name for path in tables)
            raise UserError(
                "An image folder needs exactly one metadata file.", found=f"{listed} in {folder}", do="keep one"
            )
        if tables:
            return tables[0], READERS[tables[0].suffix]
        if (folder / "dataset_dict.json").is_file():
            splits = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise UserError(
                "The data set has several splits.",
                found=", ".join(splits),
                do=f"name one of them: {folder / splits[0]}",
            )
        if (folder / "state.json").is_file():
            return folder / "state.json", _saved
        return folder / folder.name, partial(_pictures, folder)


def _saved(state: Path) -> Iterator[Row]:
    """The rows of a data set of Hugging Face datasets, numbered through all its files."""
    try:
        files = [entry["filename"] for entry in json.loads(state.read_text("utf-8"))["_data_files"]]
        paths = [state.parent / Path(name).name for name in files]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{state} does not say which files there are.", found=found, do="save the data set again"
        ) from error
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"{state.parent} is not complete.", found=f"no {missing[0].name}", do="save the data set again")
    numbers = count(1)
    for path in paths:
        for _, row in read_arrow(path):
            yield next(numbers), row


def _pictures(folder: Path, _: Path) -> Iterator[Row]:
    with readable(folder):
        own = [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        own = [name for name in own if name.lower() not in NOT_THE_USERS]
        names = [name for name in own if name.lower().endswith(SUFFIXES) and (folder / name).is_file()]
    others = [name for name in own if name not in names]
    if others or not names:
        listed = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        raise UserError(
            "An image folder needs exactly one metadata file, or only pictures that are called what they show.",
            found=f"no metadata file, {counted(len(names), 'picture')}, and {listed or 'nothing else'}, in {folder}",
            do=f"name the file or the inner folder itself; or put a table beside the pictures: {', '.join(METADATA)}",
        )
    for number, name in enumerate(names, start=1):
        yield number, _row(name)


def _row(name: str) -> dict[str, Any]:
    shown = " ".join(NUMBER.sub("", Path(name).stem).replace("_", " ").split())
    if folded(shown) in CAMERA_WORDS or not any(letter.isalpha() for letter in shown):
        raise UserError(
            "The name of a picture does not say what it shows.",
            found=name,
            do="call it by the name, such as 'Jane Doe 2.jpg', or put a table with a metadata file beside the pictures",
        )
    return {"image": name, "question": WHAT_IS_SHOWN, "answer": shown, "subject": shown}
