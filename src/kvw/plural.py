"""How a count is written with what it counts."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A count with its noun: 1 name, 2 names, 1,000 names."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
