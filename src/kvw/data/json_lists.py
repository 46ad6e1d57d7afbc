"""The rows of a JSON file: a list of objects, or one object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from kvw.data.strict_json import parse_json, too_deep
from kvw.data.tables import Row, read_jsonl, text_lines
from kvw.errors import UserError
from kvw.printable import shortened

LARGEST = 256 * 2**20
"""Characters of a list, which is read as a whole."""
HEAD = 20
"""Lines in which the first object of a list begins."""
LIST = re.compile(r"\s*\[\s*[{\]]")
DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
"""Finds where values end; :func:`parse_json` reads them."""


def read_json(path: Path) -> Iterator[Row]:
    """The objects of a JSON list or of JSON Lines, whatever the file is called.

    Raises:
        UserError: The file cannot be read, or holds anything else.
    """
    lines = text_lines(path, newline="\n")
    head = "".join(islice(lines, HEAD))
    if not LIST.match(head):
        yield from read_jsonl(path)
        return
    yield from _objects(path, _whole(path, chain([head], lines)))


def _whole(path: Path, lines: Iterator[str]) -> str:
    parts, held = [], 0
    for line in lines:
        parts.append(line)
        held += len(line)
        if held > LARGEST:
            raise UserError(
                f"{path.name}: the list has more than {LARGEST} characters.",
                do="write one object per line, and name the file .jsonl",
            )
    return "".join(parts)


def _objects(path: Path, text: str) -> Iterator[Row]:
    place = text.index("[") + 1
    number, counted = 1, 0
    first = True
    while True:
        place = _after_space(text, place)
        if text[place : place + 1] == "]":
            break
        if not first:
            if text[place : place + 1] != ",":
                raise _broken(path, text, place, "write a comma there, or end the list")
            place = _after_space(text, place + 1)
        number += text.count("\n", counted, place)
        counted = place
        what = f"{path.name}:{number}: the entry"
        try:
            _, end = DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            ends = text[place : place + 1] == "]"
            do = "remove the comma before it" if ends else f"put it right there: {error.msg.removesuffix(' at')}"
            raise _broken(path, text, error.pos, do) from error
        except RecursionError:
            too_deep(what)
        row = parse_json(text[place:end], what, "check its commas and quotes")
        if not isinstance(row, dict):
            found = shortened(text[place:end])
            raise UserError(f"{what} of the list is not a JSON object.", found=found, do="write a list of objects")
        yield number, row
        place, first = end, False
    if text[place + 1 :].strip():
        raise _broken(path, text, _after_space(text, place + 1), "remove what follows the list")


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _broken(path: Path, text: str, place: int, do: str) -> UserError:
    line = text.count("\n", 0, place) + 1
    found = shortened(text[place : place + 200].strip()) or "the end of the file"
    return UserError(f"{path.name}:{line}: the list is not JSON.", found=found, do=do)
