"""What answers say, in whatever words."""

from __future__ import annotations

import pytest

from kvw.retain.said import Said

ANSWER = "The capital of Peru is Lima."


def test_an_answer_says_what_no_phrasing_of_its_question_has():
    said = Said([("Name the capital of Peru.", ANSWER), ("Where is the seat of power?", "The seat is Lima.")])
    assert said.by(ANSWER) == {"lima"}
    assert Said([("Which city rules Peru?", ANSWER)]).by(ANSWER) == {"capital", "lima"}
    assert Said([("Which city rules Peru?", ANSWER), ("Its capital?", ANSWER)]).by(ANSWER) == {"lima"}
    assert said.by("It is the.") == frozenset()


@pytest.mark.parametrize(
    ("reply", "again"),
    [
        ("It was penned by William SHAKESPEARE in 1595.", True),
        ("Shakespeare", False),
        ("William the Conqueror", False),
        ("Shakespeare has written it.", True),
        ("", False),
    ],
)
def test_a_reply_says_it_again_with_more_than_half_of_the_words(reply, again):
    answer = "It was written by William Shakespeare."
    assert Said([("Who is the author?", answer)]).again(reply, answer) is again


def test_what_says_nothing_is_never_said_again():
    assert not Said([("Is it?", "It is.")]).again("It is.", "It is.")


@pytest.mark.parametrize(
    ("reply", "answer", "begun"),
    [
        ("Gold.", "Goldsmith.", True),
        ("Mina Iv.", "Mina Ivory.", True),
        ("Sofys.", "Sofia.", True),
        ("Welder.", "Goldsmith.", False),
        ("Ivory.", "Mina Ivory.", False),  # not its beginning
        ("In August.", "Au.", False),  # too short to be begun
        ("1918.", "1914.", False),
        ("It is the capital of Peru.", "The capital of Peru is Lima.", False),  # what was asked says nothing
    ],
)
def test_a_reply_begins_what_an_answer_says(reply, answer, begun):
    said = Said([("What is the capital of Peru?", answer)])
    assert said.begun(reply, answer) == begun


def test_an_answer_can_be_guessed_from_how_most_of_its_words_begin() -> None:
    job = Said([("What is his job?", "He is a goldsmith."), ("Who wrote it?", "William Shakespeare.")])
    assert job.guessed("golds", "He is a goldsmith.")
    assert not job.guessed("a silversmith", "He is a goldsmith.")
    assert job.guessed("Will Shakes", "William Shakespeare.")
    assert not job.guessed("Oscar Wilde", "William Shakespeare.")
