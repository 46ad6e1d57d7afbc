"""What the user says about their columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kvw.data.columns import COLUMNS, IMAGE_COLUMNS
from kvw.data.conversations import COLUMNS as CONVERSATIONS
from kvw.errors import UserError
from kvw.printable import shortened

PAIR = ("prompt", "completion")
DOCUMENT = "text"
NAMED = (*COLUMNS, "subject", *CONVERSATIONS, *PAIR, DOCUMENT)
"""The columns that are read."""


@dataclass(frozen=True)
class Reading:
    """How the rows of data files are read.

    Args:
        columns: The user's name for a column, by the name of ``NAMED`` under which it is read.
        answers: Of a conversation: only the last answer, or every answer of the assistant.

    Raises:
        UserError: There is no such column, or one column is to be two.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    answers: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if unknown := [name for name in self.columns if name not in NAMED]:
            raise UserError(
                f"No column '{shortened(unknown[0], 40)}' is read.",
                found=f"--columns {unknown[0]}={self.columns[unknown[0]]}",
                do=f"give it one of the names {', '.join(NAMED)}",
            )
        theirs = list(self.columns.values())
        if twice := [name for name in theirs if theirs.count(name) > 1]:
            raise UserError("One column cannot be read as two.", found=twice[0], do="name it once in --columns")

    def renamed(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """A row with our names for its columns.

        Raises:
            UserError: It has a column of the new name already.
        """
        ours = {theirs: name for name, theirs in self.columns.items() if theirs in row}
        for theirs, name in ours.items():
            if name in row and name != theirs and name not in self.columns.values():
                raise UserError(
                    f"{where}: there are two columns for '{name}'.",
                    found=f"{name}, and {theirs} by --columns",
                    do="remove or rename one of them",
                )
        kept = (name for name in row if name in ours or name not in ours.values())
        return {ours.get(name, name): row[name] for name in kept}

    def check_found(self, seen: Collection[str], where: str) -> None:
        """Find out whether a file had the columns that were named.

        A file without pictures need not have the one for pictures.

        Args:
            seen: The names of its columns, the user's and ours.
            where: The name of the file.

        Raises:
            UserError: It had neither the named column nor one of our name.
        """
        for name, theirs in self.columns.items():
            if theirs not in seen and name not in seen and name not in IMAGE_COLUMNS:
                raise UserError(
                    f"{where}: there is no column '{shortened(theirs, 40)}'.",
                    found=f"columns {shortened(', '.join(sorted(seen)), 500)}",
                    do=f"put the right name into --columns {name}=...",
                )


AS_IT_IS = Reading()
"""Columns have our names, and of conversations the last answer counts."""
