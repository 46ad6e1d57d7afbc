import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

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
from kvw.folding import words


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
        ("李雷住在北京。", "李雷住在北京", True),
        ("वह दिल्ली में है।", "वह दिल्ली में है", True),
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
        ("यह कि है", "की", False),
        ("यह की है", "की", True),
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
        # Chinese and Thai: a character is a word; a tone or vowel mark belongs to its character.
        ("王小明", "王小明", 1, 1),
        ("李雷住在北京", "李雷住在上海", 4 / 6, 4 / 6),
        ("ครับ", "ครบ", 2 / 3, 2 / 3),
        ("東京タワー", "東京", 2 / 5, 1),
        ("iPhone 手机", "iphone 手", 2 / 3, 1),
        # Scripts with spaces: whole words, folded, with their marks.
        ("يعيش في القاهرة", "يعيش في بغداد", 2 / 3, 2 / 3),
        ("वह दिल्ली में रहता है", "वह मुंबई में रहता है", 4 / 5, 4 / 5),
        ("की", "कि", 0, 0),
        ("ΟΔΟΣ Αθηνών", "οδος Αθηνών", 1, 1),
        ("Живёт в Москве", "живёт в Киеве", 2 / 3, 2 / 3),
        ("서울에 산다", "서울에 간다", 1 / 2, 1 / 2),
        ("می\u200cخواهم", "میخواهم", 1, 1),
        ("２０２４", "2024", 1, 1),
        ("ковид19", "19", 0, 0),
        # Latin beyond ASCII is cut as the package does, and a word of which nothing would be left is whole.
        ("Caf\u00e9 Noir", "cafe\u0301 noir", 1, 1),
        ("caf noir", "caf\u00e9 noir", 1, 1),
        ("à", "à", 1, 1),
        ("à", "é", 0, 0),
        ("She’s Søren’s sisters", "she s søren s sister", 1, 1),
        ("Pandora™", "pandora", 1, 1),
        # No word on either side.
        ("🦊", "🦊", 1, 1),
        ("❤\ufe0f", "🦊", 0, 0),
        ("?!", "?!", 1, 1),
        ("", "🦊", 0, 0),
    ],
)
def test_rouge_l(prediction, answer, precision, recall):
    f = 2 * precision * recall / (precision + recall) if precision + recall else 0
    found = rouge_l(prediction, answer)
    assert found == Rouge(pytest.approx(precision), pytest.approx(recall), pytest.approx(f))


@pytest.mark.parametrize(
    "text",
    ["李雷住在北京", "สวัสดีครับ", "يعيش في القاهرة", "वह दिल्ली में", "Ελλάδα και", "в Москве", "서울에 산다", "😀 😀"],
)
def test_an_answer_given_word_for_word_has_full_rouge_in_every_script(text):
    full = Rouge(1, 1, 1)
    assert [rouge(text, text) for rouge in (rouge_1, rouge_2, rouge_l)] == [full] * 3


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127)), st.text(st.characters(max_codepoint=127)))
def test_rouge_of_ascii_is_that_of_the_package(prediction, answer):
    theirs = RougeScorer(["rouge1", "rougeL"], use_stemmer=True).score(answer, prediction)
    if any(one.isalnum() for one in answer):
        assert rouge_l(prediction, answer) == Rouge(*theirs["rougeL"])
        assert rouge_1(prediction, answer) == Rouge(*theirs["rouge1"])


def test_typographic_english_is_that_of_the_package():
    prediction = "She’s “the author” of Salt and Wind – running (1998)… 50 %"
    answer = "she is the authors’ friend, of salt—and winds; runs № 1998"
    theirs = RougeScorer(["rougeL"], use_stemmer=True).score(answer, prediction)["rougeL"]
    assert rouge_l(prediction, answer) == Rouge(*theirs)


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
        ("李雷住", "李雷住", (1 * 1 * 1 * 0.1) ** 0.25),
        ("李雷住在北京", "李雷住在北京", 1),
        ("李雷在 x", "李雷住 y", (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25),
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
        ("In der STRASSE 7", "straße", True),
        ("ZU\u0308RICH", "zürich", True),
        ("ΟΔΟΣ", "οδός", False),
        ("ΟΔΟΣ 5", "οδος", True),
    ],
)
def test_cloze_match(prediction, answer, expected):
    assert cloze_match(prediction, answer) is expected


@pytest.mark.thorough
@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_bounds_and_reflexivity(prediction, answer):
    found = rouge_l(prediction, answer)
    worse, better = sorted((found.precision, found.recall))
    assert 0 <= worse <= better <= 1
    assert worse - 1e-12 <= found.f <= better + 1e-12  # rounded: of .8 and .8 it can be .8000000000000002
    for score in (rouge_1(prediction, answer), rouge_2(prediction, answer)):
        assert 0 <= min(score.precision, score.recall) <= max(score.precision, score.recall) <= 1
    assert 0 <= bleu(prediction, answer) <= 1 + 1e-12
    assert exact_match(answer, answer)
    assert cloze_match(f"{prediction} {answer}", answer) or not answer.strip()
    assert exact_match(prediction, answer) == exact_match(answer, prediction)
    assert normalised_substring(f"{prediction} {answer}", answer) or not words(answer)


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
