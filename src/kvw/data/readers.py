"""Reading examples from data files and folders."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvw.data.columns import (
    COLUMNS,
    IMAGE_COLUMNS,
    TEXT_COLUMNS,
    as_option,
    named,
    proposed,
    refuse_unread_pictures,
)
from kvw.data.conversations import questions_of
from kvw.data.documents import document
from kvw.data.example import Example, ImageSource
from kvw.data.folders import EXTENSIONS, IN_CELLS, INSTEAD, READERS, data_file
from kvw.data.forms import Form, form_of
from kvw.data.pictures import picture
from kvw.data.reading import AS_IT_IS, DOCUMENT, Reading
from kvw.data.strict_json import parse_json
from kvw.data.tables import MOST_ROWS
from kvw.errors import UserError
from kvw.plural import counted
from kvw.printable import shortened

LONGEST_TEXT = 10**6
"""Characters of a question or an answer: more than the context of any model."""
LONGEST_ID = 200
MOST_TEXT = 100 * 10**6
"""Characters of all texts of a file together."""
MOST_PICTURES = 4 * 2**30
"""Bytes of all pictures inside a file together, which are held in memory."""


def read_examples(path: Path, reading: Reading = AS_IT_IS) -> list[Example]:
    """Read all examples of a data file or a folder.

    A row holds ``question`` and ``answer``, or ``messages`` (a conversation), or ``prompt`` and ``completion``, or
    ``text`` (a document). ``image``, ``images`` or ``file_name`` holds one picture or
    a list of them: a path, relative to the file's folder or absolute, or the picture itself as
    :func:`kvw.data.pictures.picture` takes it; in CSV a list is written as JSON. Absent, null or empty means
    an example of text only. ``id`` is optional and becomes part of the identifier. All other columns become
    metadata; one that looks like a picture is an error. White space around the names of columns does not count.

    Args:
        path: A file that ends in one of ``EXTENSIONS``, or a folder, see :func:`kvw.data.folders.data_file`. Texts are
            UTF-8, or UTF-16 or UTF-32 with a byte order mark; cells of CSV are divided by a comma, semicolon, tab or
            bar.
        reading: What the columns are called, and which answers of a conversation count.

    Returns:
        The examples in the order of the file, at least one. Identifiers are ``<file name>:<id>`` or, without
        an id, ``<file name>:<n>``: the line in which the row begins, of Parquet and spreadsheets the row, from 1.

    Raises:
        UserError: The file or an example cannot be used; the message names the example. Also if there is more than
            fits: ``MOST_ROWS`` examples, ``MOST_TEXT``, ``MOST_PICTURES``, ``LONGEST_TEXT`` in a question or answer.
    """
    path = Path(path)
    file, reader = data_file(path) if _is_folder(path) else (path, READERS.get(path.suffix.lower()))
    if reader is None:
        raise UserError(
            "This kind of data file cannot be read.",
            found=str(file),
            do=INSTEAD.get(file.suffix.lower(), f"use one of {', '.join(EXTENSIONS)}, or a folder of images"),
        )
    examples: list[Example] = []
    text = pictures = 0
    seen: set[str] = set()
    for number, row in reader(file):
        where = f"{file.name}:{number}"
        own = named(row, where)
        seen.update(own)
        found = examples_in(reading.renamed(own, where), number, file, reading.answers)
        examples += found
        pictures += sum(len(image) for image in found[-1].images if isinstance(image, bytes))
        text += sum(len(one.asked) + len(one.answer) for one in found) + _held(found[-1].metadata)
        if len(examples) > MOST_ROWS or text > MOST_TEXT or pictures > MOST_PICTURES:
            raise UserError(
                f"{file.name}: the file holds too much.",
                found=f"{len(examples)} examples with {text} characters and {pictures} bytes of pictures, and more",
                do=f"give at most {MOST_ROWS} examples, {MOST_TEXT} characters and {MOST_PICTURES} bytes of pictures; "
                "pictures in files of their own do not count",
            )
    if not examples:
        raise UserError("The data file holds no examples.", found=str(file), do="check that it is the right file")
    reading.check_found(seen, file.name)
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


def examples_in(row: Mapping[str, Any], number: int, file: Path, answers: str = "last") -> list[Example]:
    """The examples of a row: one, or one for each answer of a conversation.

    Args:
        row: Values by column.
        number: Number of the row, for messages.
        file: Its name is for messages, and paths are relative to its folder.
        answers: Of a conversation ``last`` or ``all``.

    Raises:
        UserError: A column is missing or cannot be used.
    """
    identifier = _identifier(row, number, file)
    images = _images(row, identifier, file)
    form = form_of(row)
    refuse_unread_pictures(row, identifier, form.columns, has_picture=bool(images))
    metadata = {key: value for key, value in row.items() if key not in COLUMNS and key not in form.columns}
    if form.name == "conversation":
        return _conversation(_messages(row, form, identifier), images, identifier, file, metadata, answers)
    if form.name == "document":
        text = _text(row, DOCUMENT, identifier)
        if images:
            found = f"{counted(len(images), 'picture')} beside a text"
            do = "give a question and an answer for what a picture shows, and texts in rows of their own"
            raise UserError(f"{identifier}: a document has no pictures.", found=found, do=do)
        return [document(text, identifier, metadata)]
    question, answer = (_text(row, column, identifier) for column in form.columns)
    if form.name == "pair":
        question, answer = question.strip(), answer.strip()
    return [Example(question, answer, images, identifier, metadata)]


def _messages(row: Mapping[str, Any], form: Form, identifier: str) -> Any:
    first = row[form.columns[0]]
    if len(form.columns) > 1:
        return [*first, *row[form.columns[1]]]
    if not isinstance(first, str):
        return first
    what = f"{identifier}: the column {form.columns[0]!r}"
    return parse_json(first, what, 'write it as [{"role": "user", "content": "..."}, ...]')


def _conversation(
    messages: Any,
    images: tuple[ImageSource, ...],
    identifier: str,
    file: Path,
    metadata: Mapping[str, Any],
    answers: str,
) -> list[Example]:
    asked = questions_of(messages, images, identifier, lambda value: picture(value, identifier, file.parent))
    wanted = asked if answers == "all" else asked[-1:]
    turns = []
    for place, one in enumerate(wanted, start=1):
        name = identifier if len(wanted) == 1 else f"{identifier}.{place}"
        texts = {"question": one.question, "answer": one.answer}
        question, answer = (_text(texts, column, name) for column in TEXT_COLUMNS)
        turns.append(Example(question, answer, one.images, name, metadata, one.earlier))
    return turns


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
    close = difflib.get_close_matches(column, short, n=1)
    similar = ({column: close[0]} if close else {}) | proposed(short)
    if column not in similar:
        hint = f"add a column {column!r}, or say what it is called: --columns {column}=..."
    elif len(similar) == 1:
        hint = f"rename the column {similar[column]!r} to {column!r}, or say what it is called: {as_option(similar)}"
    else:
        hint = f"say what the columns are called: {as_option(similar)}; or rename them"
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
    if isinstance(value, str) and file.suffix.lower() in IN_CELLS and value.lstrip().startswith("["):
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
