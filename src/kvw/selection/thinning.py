"""Leaving out of an edit what it does not need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def thinned(items: Sequence[Item], enough: Callable[[list[Item]], bool], tries: int) -> list[Item]:
    """Leave out groups of items as long as the others are enough: first a half, then ever smaller groups.

    This is delta debugging (Zeller and Hildebrandt 2002) on complements: with tries to spare no single item of the
    result can be left out.

    Args:
        items: All of them, which are enough; those that can best be spared first.
        enough: Whether some of them, in their order, are enough.
        tries: How often to ask at most.

    Returns:
        Items that are enough, in their order; at least one.
    """
    kept = list(items)
    size = len(kept) // 2
    while size:
        place = 0
        while place < len(kept):
            others = kept[:place] + kept[place + size :]  # without the group that begins at place
            if others:
                if not tries:
                    return kept
                tries -= 1
                if enough(others):
                    kept = others  # the next group has moved up to this place
                    continue
            place += size
        size = min(size // 2, len(kept) // 2)
    return kept
