"""How counts and lists of names are written."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """A count with its noun: 1 name, 2 names, 1,000 names."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def agreed(count: int, one: str, several: str) -> str:
    """The word that agrees with a count: 1 names, 2 name."""
    return one if count == 1 else several
