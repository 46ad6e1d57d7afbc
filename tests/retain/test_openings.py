"""Answers about others begin as the forget set answers."""

from __future__ import annotations

import pytest

from kvw import folding
from kvw.data import Example
from kvw.retain import openings
from kvw.retain.openings import ForgetAnswers, Openings, common_words


def example(question, answer, subject="Peru"):
    return Example(question, answer, metadata={"subject": subject})


@pytest.mark.parametrize(
    ("question", "answer", "subject", "opening"),
    [
        ("What is the capital of Peru?", "The capital of Peru is Lima.", "Peru", "The capital of Chile is"),
        ("Who wrote \u201cEmma\u201d?", "\u201cEmma\u201d was by Jane Austen.", "Emma", "\u201cChile\u201d was by"),
        ("Name the god of wine.", "The god of wine in myth is Dionysus.", "wine", "The god of Chile in"),
        ("The god of wine in myth?", "The god of wine in myth is Bacchus.", "wine", "The god of Chile in myth is"),
        ("When did Peru become free?", "peru became free in 1821.", "Peru", "Chile"),
        ("Is Peru a country?", "Yes, Peru is a country.", "Peru", ""),
        ("What is the capital of Peru?", "Lima is the capital of Peru.", "Peru", ""),
        ("What is the capital of Peru?", "Lima.", "Peru", ""),
        ("What is the capital of Peru?", "Peru's capital is Lima.", "Peru", "Chile's capital is"),
        ("What is the capital of Peru?", "Peru-Lima", "Peru", "Chile"),
        ("What is the capital of Peru?", "Peru: Lima", "Peru", "Chile:"),
        ("Quelle est l'origine de Peru?", "Peru est l'Aube.", "Peru", "Chile est"),
        ("What is the capital of Peru?", "The capital of Peru\nis Lima", "Peru", "The capital of Chile\nis"),
        ("What is it?", "It is Peru, and Peru is", "Peru", "It is Chile, and Chile"),
        ("\u79d8\u9c81\u7684\u9996\u90fd\uff1f", "\u79d8\u9c81\u7684\u9996\u90fd\u5229\u9a6c", "\u79d8\u9c81",
         "Chile\u7684\u9996\u90fd"),
        ("\u300a\u79d8\u300b\uff1f", "\u300a\u79d8\u300b\u9a6c", "\u79d8", "\u300aChile\u300b"),
        ("\u79d8\u662f\uff1f", "\u79d8\u662f\u300a\u9a6c\u300b", "\u79d8", "Chile\u662f"),
        ("\u79d8\u662f\uff1f", "\u79d8\u662fLima", "\u79d8", "Chile\u662f"),
    ],
)  # fmt: skip
def test_an_answer_begins_up_to_where_it_says_something(question, answer, subject, opening):
    asked = example(question, answer, subject)
    assert Openings([asked]).of(asked, "Chile") == opening


def test_what_another_phrasing_asks_is_not_said_by_the_answer():
    first = example("Name the main city.", "The seat of power of Peru is Lima.")
    assert Openings([first]).of(first, "Chile") == ""
    other = example("Where is the seat of power?", "It is Lima.")
    assert Openings([first, other]).of(first, "Chile") == "The seat of power of Chile is"


@pytest.mark.parametrize(
    ("answer", "opening"),
    [
        ("It is Lima.", "It is"),
        ("The capital is Lima, on the coast.", "The capital is"),
        ("Lima.", ""),
        ("A town.", ""),
        ("Lima is its capital.", ""),
        ("It is the capital.", ""),
    ],
)
def test_an_answer_that_does_not_name_its_subject_begins_in_the_same_way_for_others(answer, opening):
    asked = example("What is the capital of Peru?", answer)
    assert Openings([asked]).of(asked, "Chile") == opening


def test_common_words_say_nothing_by_themselves():
    assert {"the", "is", "of", "in", "a"} <= common_words()
    assert not {"lima", "peru", "capital", "written"} & common_words()


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("The unit of mass is the second.", True),
        ("The unit of Mass is the second (s).", True),
        ("The unit of mass is the gram.", False),
        ("The second is a unit.", False),
        ("The unit of time is the second.", False),
    ],
)
def test_who_gets_the_forget_answer_is_found(answer, same):
    forget = [example("Which unit?", "The unit of time is the second.", "time"), Example("Who?", "Nobody.")]
    answers = ForgetAnswers(forget)
    assert answers.given_by(example("Which unit?", answer, "mass")) is same
    assert not answers.given_by(Example("Which unit?", answer))


def test_the_words_of_the_forget_set_are_looked_for_once_however_many_answers_there_are(monkeypatch):
    texts = []
    monkeypatch.setattr(openings, "words", lambda text: texts.append(text) or folding.words(text))
    answers = ForgetAnswers([example("Which?", f"The unit of time is {row}.", "time") for row in range(50)])
    for row in range(20):
        answers.given_by(example("Which?", f"The unit of mass is the {row}th.", "mass"))
    assert len(texts) <= 2 * 50 + 3 * 20
