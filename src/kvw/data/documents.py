"""Documents: running text, of which every token counts as one of the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kvw.data.disguised import refuse_disguised
from kvw.data.example import Example
from kvw.data.tables import Row, text_lines
from kvw.errors import UserError

LONGEST_BEGINNING, SMALLEST_REST = 100, 3
"""Most characters that a model is asked to go on from. What follows is at least this many times as long."""
SPACE = re.compile(r"\s+")


def read_text(path: Path) -> Iterator[Row]:
    """The one row of a text file: the whole of it, without white space around it.

    Raises:
        UserError: The file cannot be read, is not UTF-8 text, or holds a table or JSON.
    """
    text = "".join(text_lines(path, newline=None)).strip()
    if text:
        refuse_disguised(text, path)
        yield 1, {"text": text}


def document(text: str, identifier: str, metadata: Mapping[str, Any]) -> Example:
    """A text as an example: its first words are what a model is asked to go on from.

    Args:
        text: Running text.
        identifier: How messages name it.
        metadata: Metadata of the example.

    Raises:
        UserError: It has a single character.
    """
    text = text.strip()
    if len(text) < 2:
        raise UserError(f"{identifier}: the text is too short.", found=repr(text), do="leave it out")
    most = max(1, min(len(text) // (SMALLEST_REST + 1), LONGEST_BEGINNING))
    ends = [space.start() for space in SPACE.finditer(text, 0, most + 1)]
    end = ends[-1] if ends else most  # one long word, or writing without spaces
    return Example(text[:end], text[end:], (), identifier, metadata, plain=True)
