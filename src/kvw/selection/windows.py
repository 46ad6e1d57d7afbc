"""Ranges of layers to compare, as they are written on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from kvw.errors import UserError

PARTS = {"all": 1, "halves": 2, "thirds": 3, "quarters": 4, "each": 0}
"""Names of divisions: into how many parts; 0 is into single layers."""
Layers = tuple[int, int]
"""First and last layer, both included."""


def parse_windows(text: str) -> list[str | Layers]:
    """Read a list such as ``all,thirds,10:19,6``: divisions, ranges, and widths of sliding windows.

    Returns:
        The names of divisions, ranges, and for a width W the range (-W, 0).

    Raises:
        UserError: An entry is none of these.
    """
    found: list[str | Layers] = []
    for entry in filter(None, map(str.strip, text.split(","))):
        first, colon, last = entry.partition(":")
        if entry in PARTS:
            found.append(entry)
        elif entry.isdecimal() and int(entry) > 0:
            found.append((-int(entry), 0))
        elif colon and first.isdecimal() and last.isdecimal() and int(first) <= int(last):
            found.append((int(first), int(last)))
        else:
            raise _refused(entry)
    if not found:
        raise _refused(text)
    return found


def windows(asked: Sequence[str | Layers], layers: Sequence[int]) -> list[Layers]:
    """The ranges of layers that are meant, each once.

    Args:
        asked: From :func:`parse_windows`.
        layers: The layers that an edit changes, ascending.

    Raises:
        UserError: A range holds none of the layers.
    """
    found: list[Layers] = []
    for one in asked:
        if isinstance(one, str):
            parts = min(PARTS[one] or len(layers), len(layers))
            ends = [place * len(layers) // parts for place in range(parts + 1)]
            found += [(layers[first], layers[end - 1]) for first, end in pairwise(ends)]
        elif one[0] < 0:
            found += _sliding(layers, min(-one[0], len(layers)))
        else:
            found.append(one)
    for first, last in found:
        if not any(first <= layer <= last for layer in layers):
            raise UserError(
                "A window holds none of the layers that the method changes.",
                found=f"{first}:{last}; the method changes {layers[0]} to {layers[-1]}",
                do="name another range, or give the method more --layers",
            )
    return list(dict.fromkeys(found))


def _sliding(layers: Sequence[int], width: int) -> list[Layers]:
    """Windows of this many layers, each half a window further, and the last one at the end."""
    starts = [*range(0, len(layers) - width, max(1, width // 2)), len(layers) - width]
    return [(layers[start], layers[start + width - 1]) for start in starts]


def _refused(entry: str) -> UserError:
    return UserError(
        "--windows names ranges of layers.",
        found=entry,
        do=f"use {', '.join(PARTS)}, FIRST:LAST, or a number of layers for a window that slides; several with commas",
    )
