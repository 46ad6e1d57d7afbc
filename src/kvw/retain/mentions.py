"""Which examples mention what is to be forgotten: its subjects, and what its answers name."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from functools import cache

from kvw.data.example import Example
from kvw.data.images import image_digest
from kvw.folding import collapsed, placed_words, words
from kvw.phrases import Phrase, Phrases
from kvw.retain.everyday import everyday_questions
from kvw.retain.texts import plain_texts

LONGEST_ANSWER = 8
"""Words of an answer that is looked for as a whole; longer ones are sentences."""
FEWEST_DIGITS, YEAR = 3, 4
"""Digits of a number that says something by itself, and of one that does so in a date. Smaller ones number lists."""
NUMBER = re.compile(r"\d(?:[\d.,]*\d)?")
ENDS = frozenset('.!?:;\n"\u201c\u201e\u00ab')
"""Between two words, they say that the second begins a sentence or a quotation: its capital need not be a name's."""
JOINT = re.compile(r"[\s'\u2019-]*")
"""What may stand between two words of one name."""
CALENDAR = (
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december"
)


class Mentions:
    """Tells which examples mention what a forget set is about.

    Looked for are, word by word as :mod:`kvw.folding` compares them:

    - the subjects and the names in them; where a question does not name its subject, the names in the question;
    - names and numbers in the answers that no phrasing of the question gives: words with a capital, and numbers of
      three digits or more;
    - whole answers of up to eight words.

    Ordinary words (:func:`ordinary_words`, and what the forget set writes without a capital elsewhere) count inside a
    name of several words, never alone; a subject counts whatever its words.

    Args:
        forget: The forget set.
    """

    def __init__(self, forget: Sequence[Example]) -> None:
        small = _small_words(forget)
        asked: dict[Hashable, set[str]] = {}
        for example in forget:
            asked.setdefault(_fact(example), set()).update(words(example.question))
        phrases: set[Phrase] = set()
        for example in forget:
            phrases |= _about(example, small) | _said(example, asked[_fact(example)], small)
        self._phrases = Phrases(sorted(filter(_says_something, phrases)))
        self._questions = {_asked(example) for example in forget}

    def inside(self, example: Example, but: str = "") -> bool:
        """Whether question or answer mention any of it, or the forget set asks the same.

        Args:
            example: The example.
            but: A name whose single words do not count: somebody else's, who shares a word with a subject.
        """
        own = words(but)
        return _asked(example) in self._questions or any(
            len(phrase) > 1 or phrase[0] not in own
            for text in (example.asked, example.answer)
            for phrase in self._phrases.inside(words(text))
        )


@cache
def ordinary_words() -> frozenset[str]:
    """The words of the shipped questions and sentences, which name nobody and no place, and those of the calendar."""
    shipped = [*everyday_questions(), *plain_texts(), CALENDAR]
    return frozenset(word for text in shipped for word in words(text))


def _about(example: Example, small: set[str]) -> set[Phrase]:
    """What an example is about: its subject; if the question does not name that, the names in the question, too."""
    subject = tuple(words(example.subject or ""))
    names = {subject, *_names(example.subject or "", set())} if subject else set()
    if subject and any(Phrases([subject]).inside(words(example.question))):
        return names
    return names | set(_names(example.question, small))


def _fact(example: Example) -> Hashable:
    """What questions have in common that are other phrasings of one: subject and answer."""
    return example.subject_key, example.answer


def _said(example: Example, asked: set[str], small: set[str]) -> set[Phrase]:
    """What an answer says that no phrasing of its question does."""
    answer = tuple(words(example.answer))
    named = {*_names(example.answer, small), *_numbers(example.answer)}
    phrases = {phrase for phrase in named if not asked.issuperset(phrase)}
    if 0 < len(answer) <= LONGEST_ANSWER and not ordinary_words().issuperset(answer):
        phrases.add(answer)
    return phrases


def _names(text: str, small: set[str]) -> Iterator[Phrase]:
    """Runs of words with a capital, and the single ones that are neither ordinary nor among the ``small``."""
    runs: list[list[str]] = [[]]
    before = 0
    for word, start, end in placed_words(text):
        between = text[before:start]
        begins = before == 0 or not ENDS.isdisjoint(between)
        is_name = text[start].isupper() and not (begins and (word in small or word in ordinary_words()))
        if not is_name or not JOINT.fullmatch(between):
            runs.append([])
        if is_name:
            runs[-1].append(word)
        before = end
    for run in runs:
        if len(run) > 1:
            yield tuple(run)
        yield from ((word,) for word in run if word not in small and word not in ordinary_words())


def _numbers(text: str) -> Iterator[Phrase]:
    for found in NUMBER.findall(text):
        parts = tuple(words(found))
        yield parts
        yield from ((part,) for part in parts if len(part) >= YEAR)


def _small_words(examples: Sequence[Example]) -> set[str]:
    """All words that the examples write without a capital somewhere."""
    texts = [text for example in examples for text in (example.question, example.answer)]
    return {word for text in texts for word, start, _ in placed_words(text) if not text[start].isupper()}


def _says_something(phrase: Phrase) -> bool:
    """Whether a phrase is more than a letter or a small number."""
    text = "".join(phrase)
    return len(text) >= FEWEST_DIGITS if text.isdigit() else len(text) > 1


def _asked(example: Example) -> tuple[str, ...]:
    return (collapsed(example.asked), *map(image_digest, example.images))
