"""What kind of example a row holds, by its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvw.data.columns import TEXT_COLUMNS, proposed
from kvw.data.conversations import COLUMNS as CONVERSATIONS
from kvw.data.reading import DOCUMENT, PAIR


@dataclass(frozen=True)
class Form:
    """A kind of row.

    Args:
        name: What it is.
        columns: The columns that hold its texts.
    """

    name: Literal["question", "conversation", "pair", "document"]
    columns: tuple[str, ...]


QUESTION = Form("question", TEXT_COLUMNS)


def form_of(row: Mapping[str, Any]) -> Form:
    """What a row is; a question with an answer unless it has the columns of another kind and neither of these.

    One column of a pair is a pair that lacks the other, unless that has the name of an answer or question elsewhere.
    """
    if any(name in row for name in TEXT_COLUMNS):
        return QUESTION
    for name in CONVERSATIONS:
        if row.get(name) not in (None, ""):
            return Form("conversation", (name,))
    if all(name in row for name in PAIR):
        messages = [row[name] for name in PAIR if isinstance(row[name], list)]
        return Form("conversation" if len(messages) == len(PAIR) else "pair", PAIR)
    if DOCUMENT in row:
        return Form("document", (DOCUMENT,))
    is_half = any(name in row for name in PAIR) and len(proposed(row, TEXT_COLUMNS)) < len(TEXT_COLUMNS)
    return Form("pair", PAIR) if is_half else QUESTION
