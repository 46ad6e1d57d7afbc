"""JSON of which nothing is lost in silence: no key twice, no NaN, no endless numbers, no half characters."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from kvw.errors import UserError
from kvw.printable import shortened

DEEPEST = 64
"""Levels of lists and objects inside each other."""
MOST_DIGITS = 300
"""Most digits of one whole number."""


class NotJson(UserError):
    """The text is not JSON at all."""


def parse_json(text: str, what: str, do: str) -> Any:
    """The value that a JSON text stands for.

    Args:
        text: The text.
        what: What it is, as the beginning of a sentence: ``d.jsonl:3: the line``.
        do: What to do if it is not JSON.

    Raises:
        NotJson: It is not JSON.
        UserError: An object has a key twice, a number is none (NaN, infinity) or has more than ``MOST_DIGITS`` digits,
            it is nested deeper than ``DEEPEST``, or a text holds half of a surrogate pair, which no file can.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            names = [key for key, _ in found]
            twice = next(key for key in names if names.count(key) > 1)
            raise UserError(f"{what} has a key twice.", found=shortened(repr(twice)), do="keep one of the two")
        return made

    def number(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise UserError(f"{what} holds a number of {len(digits)} digits.", do="put it into quotes, or leave it out")
        return int(digits)

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else constant(shortened(digits))

    def constant(name: str) -> float:
        raise UserError(f"{what} holds what is no number.", found=name, do="write null, or leave it out")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_int=number, parse_float=real, parse_constant=constant)
    except json.JSONDecodeError as error:
        place = f"{error.msg.removesuffix(' at')} at character {error.pos + 1} of {shortened(text.strip())}"
        raise NotJson(f"{what} is not JSON.", found=place, do=do) from error
    except RecursionError:
        too_deep(what)
    if "\\u" in text or text.count("[") + text.count("{") > DEEPEST:  # else there is nothing to look for
        _check(value, what)
    return value


def _check(value: Any, what: str) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        for text in level:
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= one <= "\udfff" for one in text):
                raise UserError(
                    f"{what} holds half of a character.",
                    found=shortened(ascii(text)),
                    do="write the character itself, or both halves of its surrogate pair",
                )
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    too_deep(what)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def too_deep(what: str) -> NoReturn:
    """Refuse what is nested deeper than ``DEEPEST``."""
    raise UserError(f"{what} is nested more than {DEEPEST} levels deep.", do="write it flat")
