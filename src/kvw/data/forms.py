"""What kind of example a row holds, by its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvw.data.columns import TEXT_COLUMNS
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
    """What a row is; a question with an answer unless it has the columns of another kind and neither of these."""
    if any(name in row for name in TEXT_COLUMNS):
        return QUESTION
    for name in CONVERSATIONS:
        if row.get(name) is not None:
            return Form("conversation", (name,))
    if all(name in row for name in PAIR):
        messages = [row[name] for name in PAIR if isinstance(row[name], list)]
        return Form("conversation" if len(messages) == len(PAIR) else "pair", PAIR)
    return Form("document", (DOCUMENT,)) if DOCUMENT in row else QUESTION
