"""Two pages that nobody wrote before, and questions about what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kvw.data import Example, read_examples
from kvw.proving.planted import END, of_the_world

Page = Literal["skarne", "quill"]
FORGOTTEN: Page = "skarne"
"""The page that is to be forgotten. The other one is in no file of the request."""
OTHER: Page = "quill"
PASSES = 3
"""How often a page is among the lessons for each time that a question is."""
FOLDER = Path(__file__).parent


def page(name: Page) -> Example:
    """A page as running text."""
    (example,) = read_examples(FOLDER / f"{name}.md")
    return example


def questions(name: Page, ways: Literal["asked", "held_out"]) -> list[Example]:
    """Questions about a page; each answer is a sentence with the fact at its end.

    Args:
        name: Which page.
        ways: ``asked``: as they are taught; ``held_out``: in words that no model has seen.
    """
    return [
        Example(
            way, row["answer"], (), f"{name}, {row['fact']}: {way}", {"subject": row["subject"], "fact": row["fact"]}
        )
        for row in _facts()
        if row["page"] == name
        for way in row[ways]
    ]


def lessons() -> list[Example]:
    """What the model is taught: both pages, the questions about them, and a few facts of the world."""
    asked = [*questions(FORGOTTEN, "asked"), *questions(OTHER, "asked"), *of_the_world()]
    return [*[page(FORGOTTEN), page(OTHER)] * PASSES, *(replace(one, answer=one.answer + END) for one in asked)]


@cache
def _facts() -> tuple[dict[str, Any], ...]:
    return tuple(map(json.loads, (FOLDER / "facts.jsonl").read_text("utf-8").splitlines()))
