"""What a benchmark puts around its questions."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


def lettered(separator: str) -> Callable[[Sequence[str]], str]:
    """Options one below the other, each behind its letter and the separator."""

    def show(choices: Sequence[str]) -> str:
        return "\n".join(f"{letter(index)}{separator}{text}" for index, text in enumerate(choices))

    return show


WITH_COLONS = lettered(": ")
"""A: first, B: second, and so on."""


def letter(index: int) -> str:
    """The letter of the option at a position: A for 0."""
    return string.ascii_uppercase[index]


@dataclass(frozen=True)
class Prompt:
    """A template with the places ``{question}``, ``{options}`` and, in exemplars, ``{answer}``.

    Args:
        name: How records name it.
        text: The template.
        source: Where the wording comes from.
        show_options: Turns the options into text.
        reply: Whether the letter of an option is asked for, an answer in words, or nothing, because the options are
            compared by their likelihood.
        exemplar: The template of one few-shot exemplar; empty where the protocol has none.
    """

    name: str
    text: str
    source: str
    show_options: Callable[[Sequence[str]], str] = WITH_COLONS
    reply: Literal["letter", "words", "nothing"] = "words"
    exemplar: str = ""

    def ask(self, question: str, choices: Sequence[str] = ()) -> str:
        """The template filled in."""
        return _filled(self.text, {"question": question, "options": self.show_options(choices)})

    def show(self, question: str, choices: Sequence[str], answer: str) -> str:
        """One exemplar filled in."""
        return _filled(self.exemplar, {"question": question, "options": self.show_options(choices), "answer": answer})


def _filled(template: str, values: Mapping[str, str]) -> str:
    # One pass, so that braces inside a question stay what they are.
    return re.sub(r"\{(question|options|answer)\}", lambda match: values[match[1]], template)


BARE = Prompt("bare question", "{question}", "the question of the data set as it is")
"""Nothing around the question."""

UNSEEN_OPTIONS = Prompt(
    "likeliest option", "{question}", "the question; options are compared, not shown", reply="nothing"
)
"""Multiple choice by likelihood: the options are compared, not shown."""
