"""Facts of the world that a pretrained model may know, and the questions that ask for them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from kvw.data.example import Example
from kvw.folding import words
from kvw.phrases import Phrase, Phrases

WORLD = Path(__file__).parent / "world"
ARTICLE = re.compile(r"\{a\} (?=(\w))")


@dataclass(frozen=True)
class Domain:
    """A kind of fact.

    Args:
        name: For example ``capital``.
        answer: The sentence that answers; ``{}`` is the subject, ``{answer}`` the fact at its end, and ``{a}`` the
            article "a" or "an" of the word behind it.
        asked: Ways to ask, with ``{}`` for the subject.
        held_out: Further ways, which are never given to unlearning.
        invented: Subjects of the same kind that do not exist.
    """

    name: str
    answer: str
    asked: tuple[str, ...]
    held_out: tuple[str, ...]
    invented: tuple[str, ...]

    @classmethod
    def read(cls, name: str, part: Mapping[str, Any]) -> Domain:
        """A kind of fact from its table of a TOML file."""
        return cls(name, part["answer"], tuple(part["asked"]), tuple(part["held_out"]), tuple(part["invented"]))


@dataclass(frozen=True)
class Fact:
    """One fact.

    Args:
        domain: What kind of fact it is.
        subject: What it is about. Several facts may be about one subject.
        answer: The fact itself, a name or a few words, as it stands in a sentence.
    """

    domain: Domain
    subject: str
    answer: str

    @property
    def name(self) -> str:
        """The fact without the article in front of it: what an answer must hold to give it."""
        return self.answer.removeprefix("the ")

    @property
    def sentence(self) -> str:
        """The whole answer; it ends with the fact itself and a full stop."""
        return _filled(self.domain.answer.replace("{answer}", self.answer), self.subject).replace("..", ".")

    def examples(self, ways: Sequence[str]) -> list[Example]:
        """The fact asked in these ways, each an entry of ``asked`` or ``held_out`` of its domain.

        The metadata holds ``subject``, ``domain`` and ``fact``, its name.
        """
        every_way = (*self.domain.asked, *self.domain.held_out)
        return [
            Example(
                question=_filled(way, self.subject),
                answer=self.sentence,
                identifier=f"{self.domain.name}, {self.subject}: {every_way.index(way) + 1}",
                metadata={"subject": self.subject, "domain": self.domain.name, "fact": self.name},
            )
            for way in ways
        ]


def is_given(name: str, answer: str) -> bool:
    """Whether an answer holds the name of a fact as whole words, folded: "Au" is not in "August"."""
    wanted = _words(name)
    return bool(wanted) and any(Phrases([wanted]).inside(_words(answer)))


@cache
def domains() -> dict[str, Domain]:
    """All kinds of facts by name."""
    parts = tomllib.loads((WORLD / "domains.toml").read_text("utf-8"))
    return {name: Domain.read(name, part) for name, part in parts.items()}


@cache
def facts() -> tuple[Fact, ...]:
    """All facts, in the order of the file."""
    rows = [line.split("\t") for line in (WORLD / "facts.tsv").read_text("utf-8").splitlines()]
    return tuple(Fact(domains()[domain], subject, answer) for domain, subject, answer in rows)


@lru_cache(maxsize=8192)
def _words(text: str) -> Phrase:
    return tuple(words(text))


def _filled(text: str, subject: str) -> str:
    filled = ARTICLE.sub(lambda found: "an " if found[1] in "aeiouAEIOU" else "a ", text.replace("{}", subject))
    return filled[:1].upper() + filled[1:]
