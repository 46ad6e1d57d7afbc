"""Sequences of words that are looked for in texts, all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Phrase = tuple[str, ...]
"""Folded words, as :func:`kvw.folding.words` gives them; at least one."""


class Phrases:
    """Finds phrases in texts; only whole words are found.

    Args:
        phrases: What to look for.
    """

    def __init__(self, phrases: Iterable[Phrase]) -> None:
        self._by_first_word: dict[str, list[Phrase]] = {}
        for phrase in dict.fromkeys(phrases):
            self._by_first_word.setdefault(phrase[0], []).append(phrase)

    def inside(self, text: Sequence[str]) -> Iterator[Phrase]:
        """The phrases in a text of folded words, in the order of their places; again at every place."""
        for place, word in enumerate(text):
            for phrase in self._by_first_word.get(word, ()):
                if tuple(text[place : place + len(phrase)]) == phrase:
                    yield phrase
