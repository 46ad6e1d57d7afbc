"""Reading examples from JSONL, CSV and Parquet files and from image folders."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kvw.data.example import Example, ImageSource
from kvw.errors import UserError

EXTENSIONS = (".jsonl", ".csv", ".parquet")
TEXT_COLUMNS = ("question", "answer")
IMAGE_COLUMNS = ("image", "images", "file_name")
COLUMNS = (*TEXT_COLUMNS, *IMAGE_COLUMNS, "id")

Row = tuple[int, Mapping[str, Any]]
"""The 1-based number of a line or row, and its columns."""


def read_examples(path: Path) -> list[Example]:
    """Read all examples of a data file or an image folder.

    Columns: ``question`` and ``answer`` are required texts. ``image``, ``images`` or ``file_name`` holds one
        path or
    a list of paths, relative to the file's folder or absolute; in Parquet also the structures of the Hugging
    Face hub, ``{"bytes": ..., "path": ...}``; in CSV a list is written as JSON. Absent, null or empty means
    an example of text only. ``id`` is optional and becomes part of the identifier. All other columns become
    metadata.

    Args:
        path: A ``.jsonl``, ``.csv`` or ``.parquet`` file, or a folder of images with one ``metadata.jsonl``,
            ``metadata.csv`` or ``metadata.parquet`` whose ``file_name`` column names the images.

    Returns:
        The examples in the order of the file, at least one. Identifiers are ``<file name>:<id>`` or, without
        an id, ``<file name>:<n>``: the line in JSONL, the row (not counting the header) in CSV and Parquet,
        from 1.

    Raises:
        UserError: The file or an example cannot be used; the message names the example.
    """
    path = Path(path)
    if not path.exists():
        raise UserError("The data file does not exist.", found=str(path), do="check the path")
    file = _metadata_file(path) if path.is_dir() else path
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise UserError(
            "This kind of data file cannot be read.",
            found=str(file),
            do=f"use one of {', '.join(EXTENSIONS)}, or a folder of images with a metadata file",
        )
    examples = [_example(row, number, file) for number, row in reader(file)]
    if not examples:
        raise UserError("The data file holds no examples.", found=str(file), do="check that it is the right file")
    return examples


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


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError("The data file cannot be read.", found=f"{path}: {error}", do="check the file") from error
    try:
        # utf-8-sig also takes text without a byte order mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path.name}:{line}: the text is not UTF-8.",
            found=f"byte 0x{data[error.start]:02x} ({error.reason})",
            do="save the file as UTF-8",
        ) from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    # Not splitlines(): JSON strings may hold separators such as U+2028, which are no line ends here.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path.name}:{number}: the line is not JSON.",
                found=f"{error.msg} at character {error.pos + 1} of {_shortened(line)}",
                do="write one JSON object per line",
            ) from error
        if not isinstance(row, dict):
            raise UserError(
                f"{path.name}:{number}: the line is not a JSON object.",
                found=_shortened(line),
                do='write one object per line, such as {"question": "...", "answer": "..."}',
            )
        yield number, row


def _read_csv(path: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise UserError(
                f"{path.name}: a column name occurs twice.",
                found=", ".join(repeated),
                do="rename one of them",
            )
        number = 0
        for cells in reader:
            if not cells:
                continue
            number += 1
            if len(cells) != len(header):
                raise UserError(
                    f"{path.name}:{number}: the row does not fit the header.",
                    found=f"{len(cells)} cells for {len(header)} columns, line {reader.line_num} of the file",
                    do="put texts that contain commas or line breaks into double quotes",
                )
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{path.name}: the file is not valid CSV.",
            found=f"{error} (line {reader.line_num} of the file)",
            do='quote texts with double quotes, and write a double quote inside as ""',
        ) from error


def _read_parquet(path: Path) -> Iterator[Row]:
    # Imported here because it takes a quarter of a second, and most data files are JSONL.
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path.name}: the file is not valid Parquet.", found=str(error), do="write the file again"
        ) from error


def _example(row: Mapping[str, Any], number: int, file: Path) -> Example:
    identifier = _identifier(row, number, file)
    question, answer = (_text(row, column, identifier) for column in TEXT_COLUMNS)
    return Example(
        question=question,
        answer=answer,
        images=_images(row, identifier, file),
        identifier=identifier,
        metadata={key: value for key, value in row.items() if key not in COLUMNS},
    )


def _identifier(row: Mapping[str, Any], number: int, file: Path) -> str:
    name = row.get("id")
    if name is None or name == "":
        return f"{file.name}:{number}"
    if not isinstance(name, (str, int, float)):
        raise UserError(
            f"{file.name}:{number}: the id is not a text or a number.",
            found=_shortened(repr(name)),
            do="give a short text or a number, or leave the id out",
        )
    return f"{file.name}:{name}"


def _text(row: Mapping[str, Any], column: str, identifier: str) -> str:
    value = row.get(column)
    if value is None:
        state = "null" if column in row else "missing"
        similar = [name for name in row if name.strip().casefold() == column]
        similar = similar or difflib.get_close_matches(column, row, n=1)
        hint = f"rename the column {similar[0]!r} to {column!r}" if similar else f"add a column {column!r}"
        raise UserError(
            f"{identifier}: the {column} is {state}.",
            found=f"columns {', '.join(map(str, row)) or '(none)'}",
            do=f"give a text for {column!r}" if column in row else hint,
        )
    if not isinstance(value, str):
        raise UserError(
            f"{identifier}: the {column} is not a text.",
            found=f"{type(value).__name__} {_shortened(repr(value))}",
            do="put the text into quotes" if isinstance(value, (int, float)) else "give one text per example",
        )
    if not value.strip():
        raise UserError(
            f"{identifier}: the {column} is empty.", found=repr(value), do="fill it in or remove the example"
        )
    return value


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
        value = _json_list(value, identifier)
    items = value if isinstance(value, list) else [value]
    return tuple(_image(item, identifier, file.parent) for item in items)


def _is_empty(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, dict):
        # The hub's way to write no image; a structure of another kind is an error and not an absent image.
        return value.keys() >= {"bytes", "path"} and value["bytes"] is None and _is_empty(value["path"])
    return value is None or value == []


def _json_list(value: str, identifier: str) -> list[Any]:
    try:
        items = json.loads(value)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{identifier}: the list of images is not JSON.",
            found=_shortened(value),
            do='write it as ["first.png", "second.png"]',
        ) from error
    return list(items)


def _image(item: object, identifier: str, folder: Path) -> ImageSource:
    if isinstance(item, dict) and isinstance(item.get("bytes"), bytes):
        return bytes(item["bytes"])
    name = item.get("path") if isinstance(item, dict) else item
    if not isinstance(name, str) or not name.strip():
        raise UserError(
            f"{identifier}: an image is neither a path nor image data.",
            found=f"{type(item).__name__} {_shortened(repr(item))}",
            do="give the path of an image file",
        )
    path = folder / name
    try:
        is_file = path.is_file()
    except ValueError:
        # A path with a null character; from Python 3.12 on is_file() itself says no.
        is_file = False
    if not is_file:
        remote = name.startswith(("http://", "https://"))
        raise UserError(
            f"{identifier}: the image file does not exist.",
            found=str(path) if not remote else name,
            do="download it and give its path" if remote else f"check the path; it is relative to {folder}",
        )
    return path


def _shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ..."
