"""Settings from text and from values of a recipe, and every combination of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from kvw.errors import UserError
from kvw.methods.grid import every_combination
from kvw.methods.reading import read_settings


@dataclass(frozen=True)
class Group:
    share: float = 0.5
    parts: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Settings:
    rank: int
    layers: tuple[int, int] | None = None
    kind: Literal["soft", "hard"] = "soft"
    whole: bool = False
    sources: Group = field(default_factory=Group)
    lora: Group | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError("rank must be at least 1.", found=str(self.rank))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rank": "4", "layers": "1:25", "whole": "true"}, Settings(4, (1, 25), whole=True)),
        ({"rank": 4, "layers": [1, 25], "kind": "hard"}, Settings(4, (1, 25), "hard")),
        ({"rank": 4, "layers": "none"}, Settings(4)),
        ({"rank": 4, "sources.share": "0.25", "sources.parts": "b, c"}, Settings(4, sources=Group(0.25, ("b", "c")))),
        ({"rank": 4, "sources": {"parts": '["b, c"]'}}, Settings(4, sources=Group(parts=("b, c",)))),
        ({"rank": 4, "lora.share": 1}, Settings(4, lora=Group(1.0))),
        ({"rank": 4, "lora": {}}, Settings(4, lora=Group())),
        ({"rank": 4, "lora": "none"}, Settings(4)),
    ],
    ids=str,
)
def test_values_and_texts_are_read_alike(values: dict[str, Any], expected: Settings) -> None:
    assert read_settings(Settings, values, "method x") == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["method x needs a value for rank", "--set rank=VALUE"]),
        ({"rank": 4, "sources": {"shar": 1}}, ["no setting 'shar' in sources of method x", "did you mean 'share'"]),
        ({"rank": 4, "sources.share": "much"}, ["Setting sources.share of method x", "'much'", "number"]),
        ({"rank": 4, "lora.share": "much"}, ["Setting lora.share of method x", "'much'"]),
        ({"rank": 4, "lora": 8}, ["Setting lora", "8"]),
        ({"rank": 4, "layers": "1"}, ["FIRST:LAST"]),
        ({"rank": 4, "layers": [1]}, ["Setting layers of method x"]),
        ({"rank": True}, ["Setting rank of method x", "True"]),
        ({"rank": 1.5}, ["Setting rank of method x", "1.5", "integer"]),
        ({"rank": 4, "kind": "firm"}, ["Setting kind", "'soft' or 'hard'"]),
        ({"rank": 0}, ["rank must be at least 1."]),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_named(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_settings(Settings, values, "method x")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_combinations_come_in_the_order_of_the_recipe() -> None:
    assert every_combination("x", {"a": [1, 2], "b": 3, "c": ["u", "v"]}) == [
        {"a": 1, "b": 3, "c": "u"},
        {"a": 1, "b": 3, "c": "v"},
        {"a": 2, "b": 3, "c": "u"},
        {"a": 2, "b": 3, "c": "v"},
    ]


@pytest.mark.parametrize(("values", "words"), [({"a": []}, "lists no value"), ({"a": [0] * 10_001}, "too many")])
def test_grids_without_a_value_or_an_end_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        every_combination("x", values)
