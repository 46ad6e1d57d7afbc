"""Texts from files that others have made, on their way to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """A text without line ends, control characters and marks of direction: they are written as escapes."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
