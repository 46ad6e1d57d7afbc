"""What a retain set still says about the forget set, whether subjects are named or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.data.example import Example
from kvw.folding import words
from kvw.phrases import Phrases
from kvw.plural import agreed, counted

SHOWN = 3
LONGEST_NAME = 8
"""Words of an answer that is looked for inside other texts; longer ones are sentences."""


@dataclass(frozen=True)
class Overlap:
    """Retain examples that hold what is to be forgotten; an example can be in both counts.

    Args:
        of: How many examples the retain set holds.
        answers: Examples whose answer is one of the forget set.
        names: Examples in whose question or answer a subject of the forget set is named, or one of its answers of
            several words.
        found: The names, then the answers, in the order in which they appear, each once.
    """

    of: int = 0
    answers: int = 0
    names: int = 0
    found: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(repr(one) for one in self.found[:SHOWN])
        more = f" and {len(self.found) - SHOWN} more" if len(self.found) > SHOWN else ""
        give, name = agreed(self.answers, "gives", "give"), agreed(self.names, "names", "name")
        return (
            f"Of {counted(self.of, 'retain example')} {self.answers:,} {give} an answer that the forget set gives too, "
            f"and {self.names:,} {name} a subject or a longer answer of it ({shown}{more})"
        )


def overlap(retain: Sequence[Example], forget: Sequence[Example]) -> Overlap:
    """Count what of the forget set is found in a retain set; texts are compared by their words, folded."""
    answers = {tuple(words(example.answer)): example.answer for example in forget}
    answers.pop((), None)
    names = {found: text for found, text in answers.items() if 1 < len(found) <= LONGEST_NAME}
    names |= {tuple(words(one)): one for one in (example.subject for example in forget) if one and words(one)}
    phrases = Phrases(names)
    same = named = 0
    found_names: dict[str, None] = {}
    found_answers: dict[str, None] = {}
    for example in retain:
        answer = tuple(words(example.answer))
        if answer in answers:
            same += 1
            found_answers[answers[answer]] = None
        inside = [*phrases.inside(words(example.asked)), *phrases.inside(answer)]
        named += bool(inside)
        found_names |= dict.fromkeys(names[one] for one in inside)
    return Overlap(len(retain), same, named, tuple(found_names | found_answers))
