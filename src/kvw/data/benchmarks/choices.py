"""Options of multiple-choice questions in an order that depends on nothing but the question."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def order_key(*parts: object) -> str:
    """A number-like text that orders things at random, in the same way on every machine.

    Args:
        parts: A seed, and what tells the thing from all others.
    """
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def shuffled(answer: str, wrong: Sequence[str], *key: object) -> tuple[tuple[str, ...], int]:
    """Options in a random order.

    An answer that is listed among the wrong options, or an option listed twice, is shown once.

    Args:
        answer: The right one.
        wrong: The others.
        key: A seed and the name of the question.

    Returns:
        The options, and the position of the right one.
    """
    options = dict.fromkeys([answer, *wrong])
    ordered = tuple(sorted(options, key=lambda option: order_key(*key, option)))
    return ordered, ordered.index(answer)
