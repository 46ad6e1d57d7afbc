"""The questions and sentences that come with kvw."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import kvw
from kvw.evaluation.language import everyday_examples, is_broken
from kvw.folding import words
from kvw.retain.everyday import QUESTIONS, everyday_questions
from kvw.retain.mentions import ordinary_words
from kvw.retain.pictures import PICTURES
from kvw.retain.texts import REQUESTS, SENTENCES, plain_texts, text_examples

NAMES_OF_NOBODY = {
    *("I", "Python", "HTML", "JSON", "OPEN", "New"),
    *("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Saturdays", "Sunday"),
    *("March", "April", "June", "August", "September", "October", "December"),
}


def folded(texts):
    return Counter(" ".join(words(text)) for text in texts)


def test_there_are_so_many_and_none_twice():
    assert 480 <= len(everyday_questions()) <= 520
    assert 200 <= len(plain_texts()) <= 220
    assert max(folded([*everyday_questions(), *plain_texts()]).values()) == 1


def test_none_is_asked_or_said_again_where_the_language_is_looked_at():
    reported = folded(text for one in everyday_examples() for text in (one.question, one.answer))
    assert not reported.keys() & folded([*everyday_questions(), *plain_texts(), *REQUESTS]).keys()


@pytest.mark.parametrize(
    "texts", [everyday_questions(), plain_texts(), [one for _, _, asked in PICTURES for one in asked]]
)
def test_they_are_tidy_and_name_nobody(texts):
    for text in texts:
        assert text == text.strip()
        assert len(text) <= 130
        assert not is_broken(text)
        assert text[0].isupper()
        for name in re.findall(r"(?<![.!?:] )(?<!^)\b[A-Z]\w*", text):
            assert name in NAMES_OF_NOBODY or len(name) == 1, text


def test_sentences_end_as_sentences():
    assert {sentence[-1] for sentence in plain_texts()} == {"."}


@pytest.mark.parametrize(
    "kind",
    [
        ("cook", "boil", "soup"),
        ("doctor", "sleep", "water"),
        ("triangle", "percent", "number"),
        ("river", "map", "mountain"),
        ("gravity", "planet", "magnet"),
        ("draw", "film", "orchestra"),
        ("museum", "history", "farmers"),
        ("plural", "verb", "opposite"),
        ("python", "loop", "algorithm"),
        ("hello", "goodbye", "thank"),
        ("describe", "rewrite", "correct"),
        ("better", "think", "useful"),
    ],
)
def test_there_are_questions_of_every_kind(kind):
    asked = [set(words(question)) for question in everyday_questions()]
    for word in kind:
        assert any(word in one for one in asked), word


def test_sentences_stand_alone_or_answer_requests_that_do_not_say_what_they_are():
    examples = text_examples()
    assert [one.answer for one in examples] == plain_texts()
    plain, asked = examples[1::2], examples[::2]
    assert {one.question for one in asked} == set(REQUESTS)
    assert all(one.plain and not one.question for one in plain)
    assert not any(one.plain for one in asked)
    assert (examples[4].identifier, examples[4].metadata) == ("text:5", {"source": "text", "subject": "text 5"})
    assert len({one.subject for one in examples}) == len(examples)


def test_they_lie_inside_the_package():
    assert {path.parent for path in (QUESTIONS, SENTENCES)} == {Path(kvw.__file__).parent / "retain"}


def test_ordinary_words_are_theirs_and_the_calendars():
    assert {"yes", "teacher", "python", "bread", "november", "tuesday"} <= ordinary_words()
    assert not {"lima", "peru", "anna", "florist"} & ordinary_words()
