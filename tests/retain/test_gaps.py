"""Questions with a gap where their subject stood."""

from __future__ import annotations

import pytest

from kvw.data import Example
from kvw.folding import words
from kvw.retain.gaps import Gap, gaps_of, same_name


def about(subject, question, images=()):
    return Example(question, "An answer.", images, "f:1", {} if subject is None else {"subject": subject})


@pytest.mark.parametrize(
    ("subject", "question", "gap"),
    [
        ("Peru", "What is the capital of Peru?", Gap("What is the capital of ", "?", "Peru")),
        ("Anna Miller", "What is ANNA\u00a0MILLER's job?", Gap("What is ", "'s job?", "ANNA\u00a0MILLER")),
        ("Hamlet", 'Who wrote "Hamlet"', Gap('Who wrote "', '"', "Hamlet")),
        ("Anna", "Tell me about Anna", Gap("Tell me about ", "", "Anna")),
        ("\u4f1f", "\u8c01\u662f\u4f1f\uff1f", Gap("\u8c01\u662f", "\uff1f", "\u4f1f")),
    ],
)
def test_the_gap_is_where_the_subject_stood(subject, question, gap):
    assert gaps_of([about(subject, question)]) == [gap]
    assert gaps_of([about(subject, question, (b"a picture",))]) == [gap]
    assert gap.filled(subject) == question or words(gap.filled(subject)) == words(question)


@pytest.mark.parametrize(
    ("subject", "question"),
    [
        ("Peru", "Who is this?"),
        (None, "Who is Anna?"),
        ("Peru", "Is Peru in Peru?"),
        ("Lima", "Lima is the capital of which country?"),
        ("Lima", '"Lima" is the capital of which country?'),
    ],
)
def test_questions_that_do_not_name_their_subject_once_behind_other_words_leave_none(subject, question):
    assert gaps_of([about(subject, question)]) == []


def test_each_gap_once():
    forget = [about("Peru", "Where is Peru?"), about("Chile", "where  is Chile?"), about("Peru", "What is Peru?")]
    assert gaps_of(forget) == [Gap("Where is ", "?", "Peru"), Gap("What is ", "?", "Peru")]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Korea", "south korea", True),
        ("South Korea", "Korea", True),
        ("North Korea", "South Korea", False),
        ("Anna", "Annabel", False),
        ("South", "North South Korea", True),
    ],
)
def test_a_name_that_contains_another(one, other, expected):
    assert same_name(words(one), words(other)) == expected
