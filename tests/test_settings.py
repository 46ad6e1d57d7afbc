"""Settings that check themselves by their types."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pytest

from kvw.errors import UserError
from kvw.settings import Count, Finite, NotNegative, Settings, ShareAboveZero, ShareBelowOne, check_at_least


@dataclass(frozen=True)
class Base(Settings):
    steps: Count = 3
    rate: ShareAboveZero | None = None


@dataclass(frozen=True)
class Own(Base):
    weight: NotNegative = 0
    left: ShareBelowOne = 0.0
    bound: Finite = -2.0
    way: Literal["up", "down"] = "up"
    parts: tuple[Literal["eyes", "ears"], ...] = ("eyes",)
    on: bool = False
    free: str = "anything"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1."),
        ({"steps": 2.0}, "steps must be a whole number of at least 1."),
        ({"steps": True}, "steps must be a whole number of at least 1."),
        ({"steps": None}, "steps must be a whole number of at least 1."),
        ({"rate": 0}, "rate must be a number above 0 and at most 1."),
        ({"rate": 1.01}, "rate must be a number above 0 and at most 1."),
        ({"rate": "0.5"}, "rate must be a number above 0 and at most 1."),
        ({"weight": -1e-9}, "weight must be a number of at least 0."),
        ({"weight": math.inf}, "weight must be a number of at least 0."),
        ({"left": 1}, "left must be a number of at least 0 and below 1."),
        ({"bound": math.nan}, "bound must be a finite number."),
        ({"way": "sideways"}, "way must be one of: up, down."),
        ({"way": ["up"]}, "way must be one of: up, down."),
        ({"parts": ("eyes", "nose")}, "parts must be one of: eyes, ears."),
        ({"on": "False"}, "on must be True or False."),
    ],
    ids=str,
)
def test_what_its_type_does_not_allow_is_refused(values, message):
    with pytest.raises(UserError) as refused:
        Own(**values)
    assert refused.value.what == message
    assert refused.value.found == repr(next(iter(values.values())) if "parts" not in values else "nose")


def test_what_its_type_allows_is_taken():
    for values in (
        {},
        {"steps": 1, "rate": 1},
        {"rate": None, "weight": 0, "left": 0.999},
        {"bound": 7, "way": "down"},
    ):
        assert values.items() <= vars(Own(**values)).items()


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_number_that_is_too_small_is_refused_with_advice(value):
    with pytest.raises(UserError) as refused:
        check_at_least("--steps", value, 1)
    assert str(refused.value) == f"--steps must be at least 1.\nfound: {value}\ndo: give 1 or more"
    with pytest.raises(UserError, match="do: 0 asks all"):
        check_at_least("--at-most", -1, 0, do="0 asks all")
    check_at_least("--steps", 1, 1)
