"""Tables and JSON in files that are called texts: as a document nothing of their rows would be read."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from kvw.data.columns import TEXT_COLUMNS, look_alikes
from kvw.data.json_lists import LIST
from kvw.data.tables import DELIMITERS, HEADER_LINES, NAMED_DELIMITER, header_cells
from kvw.errors import UserError
from kvw.printable import shortened

LINES_OF_JSON = 3
"""So many lines that are objects, or all if there are fewer, are not the beginning of a running text."""
A_TEXT = "if it is a text, put a line of words before the first one"


def refuse_disguised(text: str, path: Path) -> None:
    """Stop at a text that is a table with questions and answers, or JSON.

    Args:
        text: The whole text, without white space around it.
        path: Where it was read.

    Raises:
        UserError: Says how to call the file.
    """
    head = text[: 2**16].splitlines(keepends=True)[:HEADER_LINES]
    if head and NAMED_DELIMITER.fullmatch(head[0]):
        del head[0]
    for delimiter in DELIMITERS:
        names = header_cells(head, delimiter)
        if all(names) and all(look_alikes(column, names) for column in TEXT_COLUMNS):
            ending = ".tsv" if delimiter == "\t" else ".csv"
            raise UserError(
                f"{path.name}: the text looks like a table, and no row of it would be read.",
                found=f"columns {shortened(', '.join(names))}, divided by {delimiter!r}",
                do=f"rename it to {path.stem}{ending}; {A_TEXT}",
            )
    if _is_json(text):
        raise UserError(
            f"{path.name}: the text looks like JSON, and no row of it would be read.",
            found=shortened(text.partition("\n")[0].strip()),
            do=f"rename it to {path.stem}.jsonl; {A_TEXT}",
        )


def _is_json(text: str) -> bool:
    if LIST.match(text):
        return _is_object(text, in_list=True)
    lines = islice((line for line in text.split("\n") if line.strip()), LINES_OF_JSON)
    return all(map(_is_object, lines))


def _is_object(text: str, *, in_list: bool = False) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value[0] if in_list and value else value, dict)
