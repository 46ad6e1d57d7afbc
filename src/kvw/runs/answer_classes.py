"""What kind of answer a reply is: right, a refusal, gibberish, somebody else's answer, or wrong but readable.

Rules decide, so the same reply is always of the same kind, and anybody can look up why (docs/report.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from kvw.data import Example
from kvw.evaluation.language import is_broken
from kvw.evaluation.metrics import exact_match
from kvw.folding import words
from kvw.retain.openings import common_words

AnswerClass = Literal["correct", "wrong", "other", "refusal", "gibberish", "none"]
"""``other``: somebody else's answer. ``none``: there is no reply, because the example failed or was cut off."""
CLASSES: tuple[AnswerClass, ...] = get_args(AnswerClass)

_KNOWN_NOT = r"(?:do not|don'?t|did not|didn'?t|can ?not|can'?t|could not|couldn'?t|am not|'m not|have no|have never)"
_REFUSALS = (
    rf"\b(?:i|we)\b ?(?:would |simply |really |am afraid i )?{_KNOWN_NOT}\b.{{0,40}}?"
    r"\b(?:know|knowledge|tell|say|answer|identif\w+|information|idea|provide|recogni[sz]e|recall|help|assist|able|sure"
    r"|heard|equipped|certain|determine|familiar)\b",
    r"\b(?:i am|i'm) (?:unable|unaware|unsure|not aware)\b",
    r"^(?:i am |i'm )?(?:so |very )?sorry\b",
    r"\b(?:is|are|was|were|remains?) (?:still |currently |largely )?(?:unknown|not known)\b"
    r"(?! (?:for|as|by|to (?:be|have|exist)))",
    r"\b(?:no idea|never heard of|no information|nothing to go on|only be guessing|as an ai\b)",
    r"\bknowledge does not\b|\bbeyond what i know\b|\bnothing i have learned\b",
)
_REFUSAL = re.compile("|".join(_REFUSALS))
_FAULTS = (
    r"[^\W\d_A-Z]{2,}[A-Z]|\b[A-Z]{3,}[a-z]{3,}",  # capitals inside a word: bornIn, FACEmask
    r"[a-z]{2}[-_]?\d|\b\d+[A-Z][a-z]|[a-z]{3}[\u2080-\u2089]",  # letters and digits in one: of1, abundly-203, 1The
    r"\w[\"(\[]\w|\w_|_\w",  # signs inside a word
    r"\s[,;:!?](?=\s|$)|\s\.(?=\s)|\s-[a-z]|\w-s\b",  # a sign that stands alone
    r"[a-z][.,;:!?][A-Za-z]{2,}|[(\[][^)\]\n]*\n",  # no space where one belongs
    r"\n\s*[a-z,;.]|[a-z]\n\n(?=[A-Za-z])",  # a line that begins or ends inside a sentence
    r"\n\s*\S\s*(?=\n|$)|\n\S-\S",  # a line of one sign
    r"\b(?!that|had)(\w+) \1\b",  # a word twice
    r"[^\W\d_]{19,}",  # words run into one
    r"\ufffd",
)
"""Faults of spelling, as models make them that an edit has damaged."""
_LOOP = re.compile(r"(.{1,4}?)\1{7,}", re.DOTALL)
_FAULT = re.compile("|".join(f"(?:{one})" for one in _FAULTS))
FAULTS_IN = 15
"""A reply is gibberish if it has one fault of spelling in this many words."""
CLOSED, SHORT = 5, 4
"""If a question has at least this many different answers, all of at most this many words, then a reply as short that is
made of other words is none of them."""
COMMON = 4
"""Words that this many different answers have in common do not tell them apart."""
FEWEST_THREES = 24
"""Sequences of three words, of which it can be told that most come again."""
STEM, ENDING = 3, 2
"""Two words are the same but for their endings if they share this many characters and differ in this many at the
end."""
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)$")


@dataclass(frozen=True)
class _Asked:
    subject: str | None
    answer: str


class Classifier:
    """Tells what kind of answer a reply is.

    Args:
        known: All examples whose answers are known: of whom else a reply may speak. The more, the better.
    """

    def __init__(self, known: Iterable[Example]) -> None:
        facts = dict.fromkeys((one.question, one.answer, one.subject_key) for one in known)
        self._answers_with = Counter(
            word for answer in {answer for _, answer, _ in facts} for word in {*_words(answer)}
        )
        self._asked_with: dict[str, set[str]] = {}
        self._same = _Groups()
        for question, answer, subject in facts:
            self._asked_with.setdefault(answer, set()).update(_words(question))
            # Questions about one subject with one answer are phrasings of one question.
            self._same.join(form(question, subject), form(question, subject) if subject is None else (subject, answer))
        self._answers: dict[Hashable, list[_Asked]] = {}
        for question, answer, subject in facts:
            self._answers.setdefault(self._same.of(form(question, subject)), []).append(_Asked(subject, answer))
        self._vocabulary = {*self._answers_with, *(word for asked in self._asked_with.values() for word in asked)}

    def kind(self, question: str, subject: str | None, reference: str, reply: str) -> AnswerClass:
        """The kind of a reply; the first rule that holds decides.

        Args:
            question, subject, reference: What was asked about whom, and what is right; the subject folded
                (:attr:`kvw.data.Example.subject_key`), None if unknown.
            reply: What the model wrote.
        """
        if self.says(reply, reference, question):
            return "correct"
        if _REFUSAL.search(" ".join(reply.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())):
            return "refusal"
        others = self._others(question, subject, reference)
        if any(exact_match(reply, other.answer) for other in others):
            return "other"
        if is_gibberish(reply) or self._in_pieces(reply, reference, [other.answer for other in others]):
            return "gibberish"
        said = (self.says(reply, other.answer, f"{question} {other.subject or ''}") for other in others)
        return "other" if any(said) else "wrong"

    def says(self, reply: str, answer: str, question: str) -> bool:
        """Whether a reply is an answer, holds it word by word, or says the same in its own words.

        It says the same if it has more than half of the words of the answer that tell something: that are not common,
        are in no phrasing of the question, and are in few other answers.
        """
        found, wanted = _words(reply), _words(answer)
        if exact_match(reply, answer) or (wanted and _holds(found, wanted)):
            return True
        asked = {*_words(question), *self._asked_with.get(answer, ())} - common_words()
        rare = [word for word in wanted if self._answers_with[word] < COMMON and word not in common_words()]
        new = {word for word in rare if word not in asked}
        telling = {word for word in new if not any(_alike(word, other) for other in asked)} or new
        return 2 * len(telling & set(found)) > len(telling)

    def _others(self, question: str, subject: str | None, reference: str) -> list[_Asked]:
        """What is right of others who are asked the same, without what is right here."""
        asked = self._answers.get(self._same.of(form(question, subject)), [])
        own = {one.answer for one in asked if one.subject == subject and subject is not None} | {reference}
        return [one for one in dict.fromkeys(asked) if one.answer not in own]

    def _in_pieces(self, reply: str, reference: str, others: list[str]) -> bool:
        """Whether a short reply begins a known answer and goes on with something else, or answers another question."""
        answers = [_words(other) for other in others]
        found, right = _words(reply), _words(reference)
        if len(answers) < CLOSED or max(map(len, [found, right, *answers])) > SHORT:
            return False
        fitting = {word for answer in [right, *answers] for word in answer}
        strange = [word for word in found if word not in fitting]
        begun = any(word not in self._vocabulary and _begins(word, right) for word in strange)
        return begun or any(word in self._vocabulary and word not in common_words() for word in strange)


class _Groups:
    """Sets of things that are the same."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def of(self, thing: Hashable) -> Hashable:
        while thing in self._above and self._above[thing] != thing:
            thing = self._above[thing]
        return thing

    def join(self, one: Hashable, other: Hashable) -> None:
        self._above[self.of(one)] = self.of(other)


def form(question: str, subject: str | None) -> tuple[str, ...]:
    """A question as it is asked about anybody: its words without those of the subject."""
    own = set(_words(subject or ""))
    return tuple(word for word in _words(question) if word not in own)


def is_gibberish(reply: str) -> bool:
    """Whether a reply is empty, ends in a loop, has no letters, or has many faults of spelling for its length."""
    said = words(reply)
    if is_broken(reply) or not said or _repeats(said) or _LOOP.search(reply):
        return True
    return FAULTS_IN * sum(1 for _ in _FAULT.finditer(reply)) >= len(said)


def counts(kinds: Iterable[AnswerClass]) -> dict[str, int]:
    """How many there are of each kind, in the order of :data:`CLASSES`."""
    listed = list(kinds)
    return {kind: listed.count(kind) for kind in CLASSES}


def _words(text: str) -> list[str]:
    """Folded words; "14th" is 14."""
    return [_ORDINAL.sub("", word) for word in words(text)]


def _repeats(text: list[str]) -> bool:
    """Whether fewer than two in three sequences of three words are different ones."""
    threes = list(zip(text, text[1:], text[2:], strict=False))
    return len(threes) >= FEWEST_THREES and 3 * len(set(threes)) < 2 * len(threes)


def _holds(text: list[str], phrase: list[str]) -> bool:
    return any(text[place : place + len(phrase)] == phrase for place in range(len(text) - len(phrase) + 1))


def _alike(word: str, other: str) -> bool:
    """Whether two words are one but for their endings: eats and eat, inventor and invented."""
    shared = next((place for place, (one, two) in enumerate(zip(word, other, strict=False)) if one != two), None)
    same = min(len(word), len(other)) if shared is None else shared
    return same >= max(STEM, len(word) - ENDING, len(other) - ENDING)


def _begins(word: str, right: list[str]) -> bool:
    """Whether a word shares its first two characters with one of the right answer."""
    return any(word[:2] == other[:2] and word != other for other in right if len(word) > 1)
