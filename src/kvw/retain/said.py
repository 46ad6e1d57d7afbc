"""What answers say, and whether a reply in other words says it, too."""

from __future__ import annotations

from collections.abc import Iterable

from kvw.data.telling import BEGINNING
from kvw.folding import words
from kvw.retain.openings import common_words


class Said:
    """What the answers of some questions say.

    That are the words of an answer that no phrasing of its question has, and that are not common
    (:func:`kvw.retain.openings.common_words`): *Lima* in "The capital of Peru is Lima.".

    Args:
        asked: Questions with their answers; questions with the same answer are phrasings of one.
    """

    def __init__(self, asked: Iterable[tuple[str, str]]) -> None:
        self._asked: dict[str, set[str]] = {}
        for question, answer in asked:
            self._asked.setdefault(answer, set()).update(words(question))

    def by(self, answer: str) -> frozenset[str]:
        """The words by which an answer says something; none if it says nothing that was not asked."""
        return frozenset(words(answer)) - common_words() - self._asked.get(answer, set())

    def again(self, reply: str, answer: str) -> bool:
        """Whether a reply says what an answer says: it has more than half of these words."""
        said = self.by(answer)
        return 2 * len(said & set(words(reply))) > len(said)

    def begun(self, reply: str, answer: str) -> bool:
        """Whether a reply begins to say what an answer says: one of its words does."""
        return any(self.begins(word, answer) for word in words(reply))

    def begins(self, word: str, answer: str) -> bool:
        """Whether a word begins to say what an answer says.

        It is the first word by which the answer says something, or has the same first :data:`BEGINNING` letters.

        Args:
            word: The word, folded.
            answer: The answer.
        """
        said = self.by(answer)
        first = next((one for one in words(answer) if one in said), "")
        spelled = first.isalpha() and len(first) > BEGINNING
        return bool(first) and (word == first or (spelled and word.startswith(first[:BEGINNING])))
