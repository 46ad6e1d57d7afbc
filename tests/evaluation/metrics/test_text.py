import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvw.errors import UserError
from kvw.evaluation.metrics import (
    Rouge,
    bleu,
    cloze_match,
    exact_match,
    keyword_share,
    normalised_substring,
    rouge_1,
    rouge_2,
    rouge_l,
)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("Paris", "Paris", True),
        (" paris.\n", "Paris", True),
        ("Paris", "PARIS .", True),
        ("New  York\nCity", "new york city", True),
        ("\uff30aris", "Paris", True),
        ("Cafe\u0301", "caf\u00e9", True),
        ("STRASSE", "Straße", True),
        ("Paris, France", "Paris", False),
        ("the Paris", "Paris", False),
        ("Paris..", "Paris", False),
        ("Paris!", "Paris", False),
        ("St. Ives", "St Ives", False),
        ("", "Paris", False),
        ("", ".", False),
        (".", ".", True),
    ],
)
def test_exact_match(prediction, answer, expected):
    assert exact_match(prediction, answer) is expected


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("This is Basil Mahfouz Al-Kuwaiti.", "basil mahfouz al kuwaiti", True),
        ("BasilMahfouz", "Basil Mahfouz", True),
        ("It is O'Neil", "ONeil", True),
        ("born in 1985!", "19 85", True),
        ("Basil", "Basil Mahfouz", False),
        ("", "Basil", False),
        ("Das ist 王小明。", "王小明", True),
        ("Das ist 李雷。", "王小明", False),
        ("ZÜRICH", "zu\u0308rich", True),
        ("anything", "?!", False),
        ("", "", False),
        ("Valencia", "Al", True),
    ],
)
def test_normalised_substring(prediction, answer, expected):
    assert normalised_substring(prediction, answer) is expected


@pytest.mark.parametrize(
    ("prediction", "answer", "precision", "recall"),
    [
        # Worked by hand: longest common subsequences of the stemmed, lower-cased words.
        ("the cat sat", "the cat sat", 1, 1),
        ("the cat", "the cat sat on the mat", 1, 2 / 6),
        ("the cat sat on the mat", "the cat", 2 / 6, 1),
        ("on the mat sat the cat", "the cat sat on the mat", 3 / 6, 3 / 6),
        ("police killed the gunman", "police kill the gunman", 1, 1),
        ("He was writing novels.", "he writes a novel", 3 / 4, 3 / 4),
        ("Basil Al-Kuwaiti", "basil mahfouz al kuwaiti", 1, 3 / 4),
        ("", "the cat", 0, 0),
        ("dog", "cat", 0, 0),
        ("王小明", "王小明", 0, 0),
    ],
)
def test_rouge_l(prediction, answer, precision, recall):
    f = 2 * precision * recall / (precision + recall) if precision + recall else 0
    found = rouge_l(prediction, answer)
    assert found == Rouge(pytest.approx(precision), pytest.approx(recall), pytest.approx(f))


@pytest.mark.parametrize(
    ("prediction", "answer", "shared_words", "shared_pairs"),
    [
        # Worked by hand; the answer has 6 words and so 5 pairs.
        ("the cat sat", "the cat sat on the mat", 3, 2),
        ("the the the the", "the cat sat on the mat", 2, 0),
        ("mat the on sat cat the", "the cat sat on the mat", 6, 0),
        ("on the mat sat the cat", "the cat sat on the mat", 6, 3),
        ("dog", "the cat sat on the mat", 0, 0),
    ],
)
def test_rouge_1_and_2(prediction, answer, shared_words, shared_pairs):
    words = len(prediction.split())
    assert rouge_1(prediction, answer).recall == pytest.approx(shared_words / 6)
    assert rouge_1(prediction, answer).precision == pytest.approx(shared_words / words)
    assert rouge_2(prediction, answer).recall == pytest.approx(shared_pairs / 5)
    assert rouge_2(prediction, answer).precision == pytest.approx(shared_pairs / max(1, words - 1))


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        # Worked by hand: geometric mean of four precisions (0 counts as 0.1) times the brevity penalty.
        ("a b c d", "a b c d", 1),
        ("Paris", "Paris", (1 * 0.1 * 0.1 * 0.1) ** 0.25),
        ("a b c d x", "a b c d y", (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        ("a b c d", "a b c d e f", math.exp(1 - 6 / 4)),
        ("a b x y", "a b c d", (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25),
        ("x", "a", 0),
        ("", "a", 0),
        ("A b c d", "a b c d", (3 / 4 * 2 / 3 * 1 / 2 * 0.1 / 1) ** 0.25),
    ],
)
def test_bleu(prediction, answer, expected):
    assert bleu(prediction, answer) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("It is PARIS.", "paris", True),
        ("It is Paris.", " Paris\n", True),
        ("New York", "NewYork", False),
        ("O'Neil", "ONeil", False),
        ("the Mayor", "May", True),
        ("anything", "", False),
        ("anything", "  ", False),
        ("", "Paris", False),
    ],
)
def test_cloze_match(prediction, answer, expected):
    assert cloze_match(prediction, answer) is expected


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_bounds_and_reflexivity(prediction, answer):
    found = rouge_l(prediction, answer)
    assert 0 <= min(found.precision, found.recall) <= found.f <= max(found.precision, found.recall) <= 1
    for score in (rouge_1(prediction, answer), rouge_2(prediction, answer)):
        assert 0 <= min(score.precision, score.recall) <= max(score.precision, score.recall) <= 1
    assert 0 <= bleu(prediction, answer) <= 1 + 1e-12
    assert exact_match(answer, answer)
    assert cloze_match(prediction + answer, answer) or not answer.strip()
    assert exact_match(prediction, answer) == exact_match(answer, prediction)
    assert normalised_substring(prediction + answer, answer) or not any(c.isalnum() for c in answer)


@pytest.mark.parametrize(
    ("prediction", "keywords", "expected"),
    [
        ("She studied law in Rome.", ("law", "Rome"), 1),
        ("she STUDIED LAW", ("law", "Rome"), 1 / 2),
        ("She plays the flute.", ("law", "Rome"), 0),
        ("a lawyer", (" law ",), 1),  # inside longer words, white space around ignored
        ("Rome, Rome, Rome", ("Rome", "law", "1987", "judge"), 1 / 4),
        ("", ("law",), 0),
    ],
)
def test_keywords_are_counted_as_fiubench_counts_them(prediction, keywords, expected):
    assert keyword_share(prediction, keywords) == expected


@pytest.mark.parametrize("keywords", [(), ("",), ("law", " ")])
def test_keywords_that_say_nothing(keywords):
    with pytest.raises(UserError, match="no keywords"):
        keyword_share("law", keywords)
