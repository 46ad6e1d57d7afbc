"""Texts from files that others have made, on their way to a terminal."""

from __future__ import annotations

SHOWN = 120
"""Characters of a text that a message quotes."""


def printable(text: str) -> str:
    """A text without line ends, control characters and marks of direction: they are written as escapes."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def shortened(text: str, limit: int = SHOWN) -> str:
    """The beginning of a text, for messages."""
    return text if len(text) <= limit else f"{text[:limit]} ..."
