"""Questions with a gap where the name stood of whom or what they ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.data.example import Example
from kvw.folding import collapsed, placed_words, words


@dataclass(frozen=True)
class Gap:
    """A question with a gap.

    Args:
        before: What stands before the gap, white space included.
        after: What stands after it.
        shown: What stood in it: an example of what can.
    """

    before: str
    after: str
    shown: str

    @property
    def key(self) -> tuple[str, str]:
        """What two gaps that ask the same have in common."""
        return collapsed(self.before), collapsed(self.after)

    def filled(self, name: str) -> str:
        """The question with a name in the gap; one that begins the question is written as a sentence begins."""
        return fill([self.before, self.after], name)


def gaps_of(forget: Sequence[Example]) -> list[Gap]:
    """The gaps that are left where forget questions name their subject.

    Args:
        forget: The forget set; its pictures play no part.

    Returns:
        One gap for each question that names its subject once, and not at its beginning: nothing before a gap says what
        can stand there. Questions that differ in their subjects only leave one gap, which shows the first of them.
    """
    gaps: dict[tuple[str, str], Gap] = {}
    for example in forget:
        between = around_subject(example)
        if between is not None and len(between) == 2 and words(between[0]):
            before, after = between
            shown = example.question[len(before) : len(example.question) - len(after)]
            gap = Gap(before, after, shown)
            gaps.setdefault(gap.key, gap)
    return list(gaps.values())


def around_subject(example: Example) -> list[str] | None:
    """What stands before, between and after the mentions of the subject; None if the question does not name it, or if
    it is the beginning of a text."""
    if example.plain:
        return None
    return around(example.question, example.subject or "")


def around(text: str, name: str) -> list[str] | None:
    """What stands before, between and after the mentions of a name; None if the text does not have it."""
    wanted = words(name)
    placed = placed_words(text)
    between: list[str] = []
    rest = place = 0
    while wanted and place + len(wanted) <= len(placed):
        if [word for word, _, _ in placed[place : place + len(wanted)]] == wanted:
            between.append(text[rest : placed[place][1]])
            place += len(wanted)
            rest = placed[place - 1][2]
        else:
            place += 1
    return [*between, text[rest:]] if between else None


def fill(between: Sequence[str], name: str) -> str:
    """Put a name into the gaps between the parts of a question.

    A name that begins a question is written as a sentence begins: "the radio" becomes "The radio".
    """
    question = name.join(between)
    return question[:1].upper() + question[1:] if not between[0] else question


def same_name(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one name contains the other, word by word.

    Args:
        one: A name in :func:`kvw.folding.words`.
        other: Another one.
    """
    short, long = sorted((tuple(one), tuple(other)), key=len)
    return any(tuple(long[place : place + len(short)]) == short for place in range(len(long) - len(short) + 1))
