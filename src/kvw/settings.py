"""Settings that check themselves: the type of a field says which values make sense."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from kvw.errors import UserError


@dataclass(frozen=True)
class Within:
    """What a finite number may be, beside its type in ``Annotated``.

    Args:
        over, under: It must be above and below these.
        least, most: It must be at least and at most these.
    """

    over: float = -math.inf
    under: float = math.inf
    least: float = -math.inf
    most: float = math.inf

    def allows(self, value: float) -> bool:
        """Whether a number is finite and within these limits."""
        return math.isfinite(value) and self.over < value < self.under and self.least <= value <= self.most

    def __str__(self) -> str:
        limits = {"above": self.over, "of at least": self.least, "at most": self.most, "below": self.under}
        return " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if math.isfinite(limit))


Count = Annotated[int, Within(least=1)]
Index = Annotated[int, Within(least=0)]
Positive = Annotated[float, Within(over=0)]
NotNegative = Annotated[float, Within(least=0)]
AtLeastOne = Annotated[float, Within(least=1)]
Share = Annotated[float, Within(least=0, most=1)]
ShareBelowOne = Annotated[float, Within(least=0, under=1)]
ShareAboveZero = Annotated[float, Within(over=0, most=1)]
Finite = Annotated[float, Within()]


class Settings:
    """Base of dataclasses of settings; numbers with limits, choices and switches are checked.

    Raises:
        UserError: A value makes no sense.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _types(kind).items():
            check(name, getattr(self, name), hint)


def check_at_least(name: str, value: float, least: float, do: str = "") -> None:
    """Refuse a number that is too small, or none.

    Args:
        name: What the user calls it.
        value: The number.
        least: The smallest that is allowed.
        do: Advice; empty for the number to give.

    Raises:
        UserError: It is too small.
    """
    if not value >= least:  # NaN is refused too
        raise UserError(f"{name} must be at least {least:g}.", found=str(value), do=do or f"give {least:g} or more")


def check(name: str, value: Any, hint: Any) -> None:
    """Check a value by its type: ``Annotated`` with :class:`Within`, ``Literal``, ``bool``, a tuple of these, or None.

    Raises:
        UserError: The value makes no sense.
    """
    options = [option for option in get_args(hint) if option is not NoneType]
    if value is None and NoneType in get_args(hint):
        return
    if len(options) == 1 and NoneType in get_args(hint):
        check(name, value, options[0])
    elif get_origin(hint) is tuple and options[-1] is Ellipsis:
        for part in value:
            check(name, part, options[0])
    elif hint is bool and not isinstance(value, bool):  # a text like "False" would count as true
        raise UserError(f"{name} must be True or False.", found=repr(value), do="give one of the two")
    elif get_origin(hint) is Literal and not (isinstance(value, str) and value in options):
        raise UserError(f"{name} must be one of: {', '.join(options)}.", found=repr(value), do="give one of them")
    elif get_origin(hint) is Annotated and isinstance(within := options[1], Within):
        kinds = int if options[0] is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not within.allows(value):
            number = "whole number" if kinds is int else "number" if str(within) else "finite number"
            raise UserError(
                f"{name} must be a {number} {within}".rstrip() + ".",
                found=repr(value),
                do="kvw methods NAME says what each setting does",
            )


@cache
def _types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}
