import math

import pytest

from kvw.errors import UserError
from kvw.evaluation.metrics import (
    Outcome,
    closest_option,
    first_character,
    first_letter,
    letter_outcome,
    likeliest,
    likelihood_outcome,
    parse_letter,
)

OPTIONS = {"A": "a florist", "B": "Paris", "C": "Basil Mahfouz", "D": "New York"}


@pytest.mark.parametrize(
    ("reply", "strict", "credulous", "read"),
    [
        # reply, first character (MLLMU-Bench), first letter (MLLMEraser), as a person reads it
        ("B", "B", "B", "B"),
        (" b\n", "B", "B", "B"),
        ("B.", "B", "B", "B"),
        ("B: Paris", "B", "B", "B"),
        ("B Paris", "B", "B", "B"),
        ("b Paris", "B", "B", "B"),
        ("C is correct.", "C", "C", "C"),
        ("B\nBecause she lives there.", "B", "B", "B"),
        ("(B)", None, "B", "B"),
        ("**B** Paris", None, "B", "B"),
        ("**B.** Paris", None, "B", "B"),
        ("A a florist", "A", "A", "A"),
        ("A. a florist", "A", "A", "A"),
        ("a) a florist", "A", "A", "A"),
        ("The answer is B.", None, None, "B"),
        ("the correct answer is: (D)", None, None, "D"),
        ("ANSWER: **D**", "A", "A", "D"),
        ("I choose option C", None, None, "C"),
        ("It must be (c) or rather (C)", None, None, "C"),
        ("Paris", None, None, "B"),
        ("She lives in New York.", None, None, "D"),
        ("A man in a hat", "A", "A", None),
        ("A florist", "A", "A", "A"),
        ("a person", "A", "A", None),
        ("Because of the hat", "B", "B", None),
        ("Certainly!", "C", "C", None),
        ("Don't know", "D", "D", None),
        ("D'accord", "D", "D", None),
        ("A or B", "A", "A", None),
        ("A, B and C", "A", "A", None),
        ("B/C", "B", "B", None),
        ("The answer is A, no, the answer is B", None, None, None),
        ("Either (A) or (D)", None, None, None),
        ("Paris or New York", None, None, None),
        ("Parisian", None, None, None),
        ("E", None, None, None),
        ("", None, None, None),
        ("...", None, None, None),
    ],
)
def test_the_three_rules(reply, strict, credulous, read):
    assert first_character(reply, "ABCD") == strict
    assert first_letter(reply, "ABCD") == credulous
    assert parse_letter(reply, OPTIONS) == read


CITIES = {"A": "北京", "B": "上海", "C": "कि", "D": "की"}


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("答案是B", "B"),
        ("答案是 B。", "B"),
        ("（A）", "A"),
        ("B。上海", "B"),
        ("B上海", "B"),
        ("A北京", "A"),
        ("答案是上海。", "B"),
        ("A和B", None),
        ("上海或北京", None),
        ("यह की है", "D"),
        ("我不知道", None),
        ("The BA答案", None),
    ],
)
def test_options_are_read_in_scripts_without_spaces_and_with_marks(reply, read):
    assert parse_letter(reply, CITIES) == read


def test_options_with_equal_texts_are_not_told_apart_by_text():
    assert parse_letter("Paris", {"A": "Paris", "B": "paris"}) is None
    assert parse_letter("B", {"A": "Paris", "B": "paris"}) == "B"


@pytest.mark.parametrize("options", [{}, {"a": "x"}, {"AB": "x"}, {"1": "x"}, {"": "x"}])
def test_options_need_single_letters(options):
    with pytest.raises(UserError, match="single upper-case letters"):
        parse_letter("A", options)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("B", Outcome.CORRECT),
        ("C", Outcome.INCORRECT),
        ("I'm sorry, I cannot tell. If I had to, the answer is B", Outcome.CORRECT),
        ("I cannot identify people.", Outcome.REFUSAL),
        ("Unknown", Outcome.REFUSAL),
        ("A man in a hat", Outcome.INVALID),
        ("A or B", Outcome.INVALID),
        ("", Outcome.INVALID),
        (None, Outcome.FAILED),
    ],
)
def test_every_reply_ends_in_one_of_five_ways(reply, outcome):
    assert letter_outcome(reply, OPTIONS, "B") is outcome


@pytest.mark.parametrize(
    ("log_probabilities", "chosen", "outcome"),
    [
        ({"A": -3.0, "B": -1.0, "C": -2.0}, "B", Outcome.CORRECT),
        ({"A": -0.5, "B": -1.0, "C": -2.0}, "A", Outcome.INCORRECT),
        ({"A": -1.0, "B": -1.0, "C": -2.0}, None, Outcome.INVALID),
        ({"A": -math.inf, "B": -900.0}, "B", Outcome.CORRECT),
        ({"A": -math.inf, "B": -math.inf}, None, Outcome.INVALID),
        ({"B": -math.inf}, None, Outcome.INVALID),
    ],
)
def test_the_likeliest_option(log_probabilities, chosen, outcome):
    assert likeliest(log_probabilities) == chosen
    assert likelihood_outcome(log_probabilities, "B") is outcome


@pytest.mark.parametrize("log_probabilities", [{}, {"A": math.nan, "B": -1.0}])
def test_what_cannot_be_compared(log_probabilities):
    with pytest.raises(UserError, match="cannot be compared"):
        likeliest(log_probabilities)


def test_the_right_answer_must_be_an_option():
    with pytest.raises(UserError, match="'E' beside 'A', 'B', 'C', 'D'"):
        letter_outcome("A", OPTIONS, "E")
    with pytest.raises(UserError, match="not one of the options"):
        likelihood_outcome({"A": -1.0}, "B")


@pytest.mark.parametrize(
    ("reply", "options", "expected"),
    [
        # 2 M / T by hand: M characters in matching blocks, T in both texts.
        ("pilot", ("a baker", "a pilot"), 1),  # 0 and 2 x 5 / 12
        (" a baker\n", ("a pilot", "a baker"), 1),  # 2 x 2 / 14 ("a ") and 1
        ("She is a baker.", ("baker", "a baker"), 1),  # 2 x 5 / 20 and 2 x 7 / 22
        ("I cannot say.", ("a baker", "a pilot"), 1),  # " ", "a": 4 / 20; " ", "ot": 6 / 20. No refusal is none of them
        ("", ("a baker", "a pilot"), 0),  # 0 and 0: the first
        ("B", ("A", "b", "B"), 2),  # 0, 0 and 1: case counts
        ("tide", ("diet", "t"), 1),  # "t" alone: 2 / 8 and 2 / 5; with the option first "ie", 4 / 8
    ],
)
def test_the_closest_option_is_umu_benchs(reply, options, expected):
    assert closest_option(reply, options) == expected


def test_the_closest_of_no_options():
    with pytest.raises(UserError, match="no options to compare"):
        closest_option("B", ())
