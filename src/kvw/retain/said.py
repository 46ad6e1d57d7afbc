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
        """Whether a reply begins to say what an answer says.

        It has the first word by which the answer says something, or one with the same first :data:`BEGINNING` letters.
        """
        said = self.by(answer)
        first = next((word for word in words(answer) if word in said), "")
        return bool(first) and any(begins(word, first) for word in words(reply))

    def guessed(self, reply: str, answer: str) -> bool:
        """Whether what an answer says can be guessed from a reply.

        It has more than half of these words, or others with the same first :data:`BEGINNING` letters: *Golds* for
        *Goldsmith*, but not *Wilde* for *William Shakespeare*.
        """
        said, replied = self.by(answer), words(reply)
        return 2 * sum(any(begins(word, one) for word in replied) for one in said) > len(said)


def begins(word: str, other: str) -> bool:
    """Whether a word, folded, is another one or begins like it, with the same first :data:`BEGINNING` letters."""
    spelled = other.isalpha() and len(other) > BEGINNING
    return word == other or (spelled and word.startswith(other[:BEGINNING]))
