"""The questions of an audit, and whether a reply says their answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kvw.data import Example
from kvw.folding import collapsed, placed_words, words
from kvw.retain.said import Said
from kvw.selection.own_words import Span


class Judge:
    """Tells whether a reply says an answer, and whether a prompt gives it away.

    Args:
        examples: All questions that are asked, with their answers.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self._said = Said((one.question, one.answer) for one in examples)

    def says(self, reply: str, answer: str) -> bool:
        """Whether it has more than half of the words by which the answer says something; without any, is the answer."""
        if self._said.by(answer):
            return self._said.again(reply, answer)
        return collapsed(reply).rstrip(".") == collapsed(answer).rstrip(".")

    def telling_word(self, answer: str) -> str | None:
        """The first word by which an answer says something, as it is written; None if there is none."""
        return next((answer[start:end] for start, end in self.telling_places(answer)), None)

    def telling_places(self, answer: str) -> list[Span]:
        """Where the words stand by which an answer says something, in characters."""
        telling = self._said.by(answer)
        return [(start, end) for word, start, end in placed_words(answer) if word in telling]

    def gives_away(self, prompt: str, example: Example) -> bool:
        """Whether a prompt has a word of the answer that the question has not; or the answer, if it has none."""
        telling = self._said.by(example.answer) or set(words(example.answer)) - set(words(example.question))
        return bool(telling & set(words(prompt)))


@dataclass(frozen=True)
class Questions:
    """What a model is asked.

    Args:
        examples: The questions with the answers that are looked for.
        others: Further questions with answers: what must stay.
        judge: Judge of these answers.
        rephrasings: Further ways to put the questions, by identifier, with photos of their own.
    """

    examples: Sequence[Example]
    others: Sequence[Example]
    judge: Judge
    rephrasings: dict[str, tuple[Example, ...]]

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        others: Sequence[Example],
        rephrasings: dict[str, tuple[Example, ...]] | None = None,
    ) -> Questions:
        """Make questions with a judge of their own."""
        return cls(examples, others, Judge(examples), rephrasings or {})

    def only(self, identifiers: set[str]) -> Questions:
        """Some of the questions, judged as all of them are."""
        return replace(self, examples=[one for one in self.examples if one.identifier in identifiers])
