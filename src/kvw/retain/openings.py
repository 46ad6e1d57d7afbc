"""How answers begin that say the same kind of thing as a forget answer.

"The capital of Peru is Lima." begins like "The capital of Chile is". A model that goes on from there says what it knows
of Chile in the words in which the forget set says it of Peru. So what must stay is asked in the form of what must go.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

from kvw.data.example import Example
from kvw.folding import placed_words, stands_alone, words
from kvw.retain.everyday import everyday_questions
from kvw.retain.gaps import around, fill
from kvw.retain.texts import plain_texts

COMMON = 0.01
"""Words in a larger share of the shipped questions and sentences say nothing by themselves."""


class Openings:
    """Begins answers about others as the forget set answers.

    Args:
        forget: The forget set. What its questions ask, its answers do not say.
    """

    def __init__(self, forget: Sequence[Example]) -> None:
        asked = {word for example in forget for word in words(example.question)}
        self._idle = common_words() | asked | {"s"}  # as in "Peru's"

    def of(self, example: Example, name: str) -> str:
        """How an answer to the question of a forget example begins if it is asked about somebody else.

        Args:
            example: Example of the forget set.
            name: Whom or what it is asked about instead.

        Returns:
            The answer up to where it says something, with the name in the place of the subject if it has one ("It is
            in" says of others, too, where they are). Empty if the answer says something before that, or begins with
            one idle word and no subject.
        """
        between = around(example.answer, example.subject or "")
        if between is None:
            beginning = self._idle_beginning(example.answer)
            return beginning if len(words(beginning)) > 1 else ""
        if not all(self._idle.issuperset(words(part)) for part in between[:-1]):
            return ""
        return fill([*between[:-1], self._idle_beginning(between[-1])], name)

    def _idle_beginning(self, text: str) -> str:
        """The words of a text up to the first that says something; none if no word does."""
        placed = placed_words(text)
        telling = next((place for place, (word, _, _) in enumerate(placed) if word not in self._idle), 0)
        for start in (end for _, _, end in reversed(placed[:telling])):
            if (end := _closed(text, start)) is not None:
                return text[:end]
        return text[: _closed(text, 0) or 0]


def _closed(text: str, end: int) -> int | None:
    """The end with what closes a quotation there; None if what follows belongs to the same word, as in "l'Aube"."""
    before, start = text[:end][-1:], end
    while end < len(text) and not text[end].isalnum() and not text[end].isspace():
        if unicodedata.category(text[end]) in ("Ps", "Pi"):
            return end
        end += 1
    if end == len(text) or text[end].isspace() or stands_alone(text[end]):
        return end
    return start if before and stands_alone(before) else None


@cache
def common_words() -> frozenset[str]:
    """The words that more than one in a hundred of the shipped questions and sentences have."""
    shipped = [*everyday_questions(), *plain_texts()]
    counts = Counter(word for text in shipped for word in set(words(text)))
    return frozenset(word for word, count in counts.items() if count > COMMON * len(shipped))


class ForgetAnswers:
    """Tells whether an answer says of somebody else what a forget answer says of its subject.

    Args:
        forget: The forget set. Its words are looked for once, not for every answer.
    """

    def __init__(self, forget: Sequence[Example]) -> None:
        said = dict.fromkeys((one.subject, one.answer) for one in forget if one.subject)
        self._said = [(words(subject), words(answer)) for subject, answer in said]

    def given_by(self, example: Example) -> bool:
        """Whether an answer is one of them, or begins like one, with another name in it.

        Args:
            example: Example of a neighbour, with its name as the subject.
        """
        between = around(example.answer, example.subject or "")
        if between is None:
            return False
        first, *others = map(words, between)
        for subject, wanted in self._said:
            said = list(first)
            for part in others:
                said += [*subject, *part]
            if wanted and said[: len(wanted)] == wanted:
                return True
        return False
