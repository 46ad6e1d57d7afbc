"""Reading examples from JSONL, CSV and Parquet files and from image folders."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvw.data.columns import COLUMNS, IMAGE_COLUMNS, TEXT_COLUMNS, named, refuse_unread_pictures
from kvw.data.example import Example, ImageSource
from kvw.data.pictures import picture
from kvw.data.strict_json import parse_json, shortened
from kvw.data.tables import MOST_ROWS, READERS
from kvw.errors import UserError

EXTENSIONS = tuple(READERS)
LONGEST_TEXT = 10**6
"""Characters of a question or an answer: more than the context of any model."""
LONGEST_ID = 200
MOST_TEXT = 100 * 10**6
"""Characters of all texts of a file together."""
MOST_PICTURES = 4 * 2**30
"""Bytes of all pictures inside a file together, which are held in memory."""


def read_examples(path: Path) -> list[Example]:
    """Read all examples of a data file or an image folder.

    Columns: ``question`` and ``answer`` are required texts. ``image``, ``images`` or ``file_name`` holds one picture or
    a list of them: a path, relative to the file's folder or absolute, or the picture itself as
    :func:`kvw.data.pictures.picture` takes it; in CSV a list is written as JSON. Absent, null or empty means
    an example of text only. ``id`` is optional and becomes part of the identifier. All other columns become
    metadata; one that looks like a picture is an error. White space around the names of columns does not count.

    Args:
        path: A ``.jsonl``, ``.csv`` or ``.parquet`` file, or a folder of images with one ``metadata.jsonl``,
            ``metadata.csv`` or ``metadata.parquet`` whose ``file_name`` column names the images. Texts are UTF-8, or
            UTF-16 or UTF-32 with a byte order mark; cells of CSV are divided by a comma, semicolon, tab or bar.

    Returns:
        The examples in the order of the file, at least one. Identifiers are ``<file name>:<id>`` or, without
        an id, ``<file name>:<n>``: the line in JSONL, the line in which it begins in CSV, the row in Parquet, from 1.

    Raises:
        UserError: The file or an example cannot be used; the message names the example. Also if there is more than
            fits: ``MOST_ROWS`` examples, ``MOST_TEXT``, ``MOST_PICTURES``, ``LONGEST_TEXT`` in a question or answer.
    """
    path = Path(path)
    file = _metadata_file(path) if _is_folder(path) else path
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise UserError(
            "This kind of data file cannot be read.",
            found=str(file),
            do=f"use one of {', '.join(EXTENSIONS)}, or a folder of images with a metadata file",
        )
    examples: list[Example] = []
    text = pictures = 0
    for number, row in reader(file):
        example = example_of(named(row, f"{file.name}:{number}"), number, file)
        examples.append(example)
        pictures += sum(len(image) for image in example.images if isinstance(image, bytes))
        text += len(example.question) + len(example.answer) + _held(example.metadata)
        if len(examples) > MOST_ROWS or text > MOST_TEXT or pictures > MOST_PICTURES:
            raise UserError(
                f"{file.name}: the file holds too much.",
                found=f"{len(examples)} examples with {text} characters and {pictures} bytes of pictures, and more",
                do=f"give at most {MOST_ROWS} examples, {MOST_TEXT} characters and {MOST_PICTURES} bytes of pictures; "
                "pictures in files of their own do not count",
            )
    if not examples:
        raise UserError("The data file holds no examples.", found=str(file), do="check that it is the right file")
    return examples


def _is_folder(path: Path) -> bool:
    try:
        path.name.encode()
        mode = path.stat().st_mode
    except UnicodeEncodeError as error:
        raise UserError("The name of the data file is not UTF-8.", found=ascii(path.name), do="rename it") from error
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError, ValueError))
        raise UserError(
            "The data file does not exist." if missing else "The data file cannot be looked at.",
            found=str(path) if missing else f"{shortened(str(path))}: {getattr(error, 'strerror', error)}",
            do="check the path",
        ) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UserError("The data file is neither a file nor a folder.", found=str(path), do="check the path")
    return stat.S_ISDIR(mode)


def _metadata_file(folder: Path) -> Path:
    candidates = [folder / f"metadata{extension}" for extension in EXTENSIONS]
    found = [candidate for candidate in candidates if candidate.is_file()]
    if len(found) != 1:
        listed = ", ".join(candidate.name for candidate in found) or "none of them"
        raise UserError(
            "An image folder needs exactly one metadata file.",
            found=f"{listed} in {folder}",
            do=f"keep one of {', '.join(candidate.name for candidate in candidates)}",
        )
    return found[0]


def example_of(row: Mapping[str, Any], number: int, file: Path) -> Example:
    """The example that a row of a file is.

    Args:
        row: By column.
        number: Of the row, for messages.
        file: Its name is for messages, and paths are relative to its folder.

    Raises:
        UserError: A column is missing or cannot be used.
    """
    identifier = _identifier(row, number, file)
    question, answer = (_text(row, column, identifier) for column in TEXT_COLUMNS)
    images = _images(row, identifier, file)
    refuse_unread_pictures(row, identifier, has_picture=bool(images))
    metadata = {key: value for key, value in row.items() if key not in COLUMNS}
    return Example(question, answer, images, identifier, metadata)


def _identifier(row: Mapping[str, Any], number: int, file: Path) -> str:
    name = row.get("id")
    if name is None or name == "":
        return f"{file.name}:{number}"
    if not isinstance(name, (str, int, float)):
        raise UserError(
            f"{file.name}:{number}: the id is not a text or a number.",
            found=shortened(repr(name)),
            do="give a short text or a number, or leave the id out",
        )
    if len(str(name)) > LONGEST_ID:
        do = f"give at most {LONGEST_ID} characters, or leave the id out"
        raise UserError(f"{file.name}:{number}: the id is too long.", found=shortened(str(name)), do=do)
    return f"{file.name}:{name}"


def _text(row: Mapping[str, Any], column: str, identifier: str) -> str:
    value = row.get(column)
    if value is None:
        raise _missing(row, column, identifier)
    if not isinstance(value, str):
        raise UserError(
            f"{identifier}: the {column} is not a text.",
            found=f"{type(value).__name__} {shortened(repr(value))}",
            do="put the text into quotes" if isinstance(value, (int, float)) else "give one text per example",
        )
    if not value.strip():
        raise UserError(
            f"{identifier}: the {column} is empty.",
            found=shortened(repr(value)),
            do="fill it in or remove the example",
        )
    if len(value) > LONGEST_TEXT:
        raise UserError(
            f"{identifier}: the {column} is too long.",
            found=f"{len(value)} characters, more than {LONGEST_TEXT}",
            do="check that it is the right file",
        )
    return value


def _missing(row: Mapping[str, Any], column: str, identifier: str) -> UserError:
    state = "null" if column in row else "missing"
    short = [name for name in row if len(name) < LONGEST_ID]
    similar = [name for name in short if name.casefold() == column]
    similar = similar or difflib.get_close_matches(column, short, n=1)
    hint = f"rename the column {similar[0]!r} to {column!r}" if similar else f"add a column {column!r}"
    return UserError(
        f"{identifier}: the {column} is {state}.",
        found=f"columns {shortened(', '.join(row), 500) or '(none)'}",
        do=f"give a text for {column!r}" if column in row else hint,
    )


def _images(row: Mapping[str, Any], identifier: str, file: Path) -> tuple[ImageSource, ...]:
    given = [column for column in IMAGE_COLUMNS if not _is_empty(row.get(column))]
    if len(given) > 1:
        raise UserError(
            f"{identifier}: more than one column names images.",
            found=", ".join(given),
            do="keep one of them",
        )
    if not given:
        return ()
    value = row[given[0]]
    if file.suffix.lower() == ".csv" and value.lstrip().startswith("["):
        value = parse_json(value, f"{identifier}: the list of images", 'write it as ["first.png", "second.png"]')
    items = value if isinstance(value, list) else [value]
    return tuple(picture(item, identifier, file.parent) for item in items)


def _is_empty(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, dict):
        # The hub's way to write no image; a structure of another kind is an error and not an absent image.
        return value.keys() >= {"bytes", "path"} and value["bytes"] is None and _is_empty(value["path"])
    return value is None or value == []


def _held(metadata: Mapping[str, Any]) -> int:
    """About how many characters metadata hold."""
    return sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in metadata.values())
