"""Phrasings of questions about a fact, a picture or a name, shipped in five languages, or the user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from kvw.data.folders import readable
from kvw.data.strict_json import parse_json
from kvw.data.tables import text_lines
from kvw.errors import UserError
from kvw.printable import shortened
from kvw.strict import Strict

SHIPPED = Path(__file__).parent / "phrasings"
LANGUAGES = tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))
FIELD = re.compile(r"\{(\w*)\}")
FIELDS = ("name", "fact", "value")
FEWEST = 2
"""Questions of a wording: one of them is held out."""
TOLD = {
    "too_short": f"at least {FEWEST} questions are needed, because one of them is held out",
    "missing": "it is missing",
    "string_type": "it is no text",
    "tuple_type": "it is no list of texts",
    **dict.fromkeys(("dict_type", "model_type"), "it is no object {...}"),
}
"""What is wrong with an entry, by the name that pydantic has for it."""
MISSPELT = "extra_forbidden"
"""This is told first: it is why another entry is missing."""


class Wording(Strict):
    """How a fact is asked for, and how it is answered.

    ``{name}`` stands for the subject, ``{fact}`` for what is asked, ``{value}`` for the answer.
    """

    questions: tuple[str, ...] = Field(min_length=FEWEST)
    answer: str

    @field_validator("questions", "answer")
    @classmethod
    def _known_fields(cls, given: Any) -> Any:
        for text in [given] if isinstance(given, str) else given:
            if not text.strip():
                raise ValueError("a text is empty")
            if unknown := [name for name in FIELD.findall(text) if name not in FIELDS]:
                raise ValueError(f"{{{unknown[0]}}} is not one of {', '.join(f'{{{name}}}' for name in FIELDS)}")
        return given


class Phrasings(Strict):
    """All wordings of a language."""

    fact: Wording
    """A fact, by name."""
    seen: Wording
    """A fact, by photo."""
    shown: Wording
    """Who or what a photo shows."""
    about: tuple[tuple[str, ...], ...] = ()
    """What a model is asked about a name of which nothing else is known: phrasings of one question after the other."""
    facts: dict[str, Wording] = Field(default_factory=dict)
    """Wordings, by name, of single facts, by their column."""

    def of(self, fact: str) -> Wording:
        """How a fact is asked for by name."""
        return self.facts.get(fact, self.fact)


def filled(template: str, **values: str) -> str:
    """A template with values in the place of its fields; braces in the values stay."""
    text = FIELD.sub(lambda field: values.get(field[1], field[0]), template)
    return text[:1].upper() + text[1:]


def phrasings(language: str, own: Path | None = None) -> Phrasings:
    """The phrasings of a language, with the user's in the place of those that they give.

    Args:
        language: One of ``LANGUAGES``.
        own: A JSON file with any of the entries of :class:`Phrasings`.

    Raises:
        UserError: There is no such language, or the file cannot be used.
    """
    if language not in LANGUAGES:
        do = f"use {', '.join(LANGUAGES)}, or give your own with --phrasings FILE"
        raise UserError(f"There are no phrasings in '{shortened(language, 20)}'.", do=do)
    found = json.loads((SHIPPED / f"{language}.json").read_text("utf-8"))
    if own is not None:
        found |= _read(own)
    try:
        return Phrasings.model_validate(found)
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != MISSPELT)
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{own}: the phrasings cannot be used.",
            found=f"{shortened(place)}: {_told(first)}",
            do='write {"facts": {"profession": {"questions": ["...", "..."], "answer": "{name} is {value}."}}}',
        ) from error


def _told(error: ErrorDetails) -> str:
    if error["type"] == MISSPELT:
        fields = Phrasings.model_fields if len(error["loc"]) == 1 else Wording.model_fields
        return f"no such entry is read, only {', '.join(fields)}"
    return TOLD.get(error["type"], error["msg"].removeprefix("Value error, "))


def check_facts(words: Phrasings, facts: Sequence[str]) -> None:
    """Refuse wordings of what nobody is asked for.

    Args:
        words: The phrasings.
        facts: What is asked about the subjects: columns of the table.

    Raises:
        UserError: A wording is for something else.
    """
    if unknown := [fact for fact in words.facts if fact not in facts]:
        known = f"call the facts as their columns are called: {shortened(', '.join(facts), 500)}"
        raise UserError(
            "The phrasings are for a fact that the table does not have.",
            found=shortened(", ".join(unknown)),
            do=known if facts else "leave out 'facts': the table has none",
        )


def _read(path: Path) -> dict[str, Any]:
    with readable(path):
        if not path.is_file():
            raise UserError("There is no such file of phrasings.", found=str(path), do="check the path")
    read = parse_json("".join(text_lines(path, None)), f"{path.name}: the file", "write one JSON object")
    if not isinstance(read, dict):
        raise UserError(f"{path.name}: the file is no JSON object.", do='write {"facts": {...}}')
    return read
