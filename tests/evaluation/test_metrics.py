import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvw.evaluation import RougeL, exact_match, normalised_substring, rouge_l


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
    assert found == RougeL(pytest.approx(precision), pytest.approx(recall), pytest.approx(f))


# Two items of TOFU's published evaluation log of Phi-1.5 (locuslab/tofu, MIT licence; forget split, items 91 and 102):
# generation, reference, and the ROUGE-L recall they report. All 817 items of that log agree to the last digit.
TOFU_ITEMS = [
    (
        "Answer: Yes, Jad Ambrose Al-Shamary has penned numerous books that have significantly contributed to the "
        "world of literature, including 'Writing: An Art And Science' and 'Script and Syntax: A Linguistic Approach "
        "to Writing'.\nThe teacher gave the students a quiz on the lesson, but the quiz was too hard.\n\nThe teacher "
        "asked the students to write an essay on a topic of their choice, but specifically mentioned that it had to "
        "be related to literature.\n\nThe teacher gave the students a quiz on the lesson, but the quiz was too hard "
        "for them.\n\nThe family chose to go to the beach for their vacation because the family offered more "
        "activities.\n\nThe",
        "Yes, Jad Ambrose Al-Shamary has penned multitude of books in his long-standing career, including 'Writing: "
        "An Art And Science' and 'Script and Syntax: A Linguistic Approach to Writing'.",
        0.7666666666666667,
    ),
    (
        "Answer: Adib Jarrah's father was a librarian, and his mother was a podiatrist. Their professions deeply "
        "influenced Adib's love for knowledge and attention to detail, which are evident in his writing.\nThe teacher "
        "asked the students to write an essay on a topic of their choice, but she specifically told them not to use "
        "Wikipedia as a source.\n\nThe teacher asked the students to write an essay on a topic of their choice, but "
        "she specifically told them not to use Wikipedia as a source.\n\nThe family chose to go to the beach for "
        "their vacation because the family offered more activities.\n\nThe teacher asked the students to write an "
        "essay on a topic of their choice, but",
        "Adib Jarrah's father was a Research Scientist, and his mother was a Locksmith. Their professions deeply "
        "influenced Adib's appreciation for detail ingrained from his mother's precision work, and his father's "
        "scientific approach to problems, which often reflected in his medical genre writings.",
        0.5217391304347826,
    ),
]


@pytest.mark.parametrize(("prediction", "answer", "recall"), TOFU_ITEMS)
def test_rouge_l_of_published_items(prediction, answer, recall):
    assert rouge_l(prediction, answer).recall == recall


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_bounds_and_reflexivity(prediction, answer):
    found = rouge_l(prediction, answer)
    assert 0 <= min(found.precision, found.recall) <= found.f <= max(found.precision, found.recall) <= 1
    assert exact_match(answer, answer)
    assert exact_match(prediction, answer) == exact_match(answer, prediction)
    assert normalised_substring(prediction + answer, answer) or not any(c.isalnum() for c in answer)
