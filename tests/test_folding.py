import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvw.folding import collapsed, folded, latin, placed_words, spaced, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("It's 3.14, isn\u2019t it?", ["it", "s", "3", "14", "isn", "t", "it"]),
        ("snake_case", ["snake", "case"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("李雷 is 5岁", ["李", "雷", "is", "5", "岁"]),
        ("が か\u3099", ["が", "が"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("हिन्दी", ["हिन्दी"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("Ｐａｒｉｓ ①", ["paris", "1"]),
        ("™ ❤\ufe0f 👩\u200d🚀 ---", []),
        ("\u0301x", ["x"]),
    ],
)
def test_words(text, expected):
    assert words(text) == [unicodedata.normalize("NFKC", one) for one in expected]


def test_names_are_one_however_they_are_written():
    assert len({collapsed(one) for one in ("Zoë  Ά", " ZOE\u0308\u00a0ά\n", "\uff3aoë Ά")}) == 1
    assert collapsed("Zoe") != collapsed("Zoë")
    assert (
        len({collapsed(one) for one in ("Zoe", "Z\u200boe", "\ufeffZoe", "Zo\u00ade", "\u202aZoe\u202c", "Zoe\u2060")})
        == 1
    )


@pytest.mark.thorough
@settings(derandomize=True)
@given(st.text())
def test_folding_twice_changes_nothing(text):
    assert folded(folded(text)) == folded(text)
    assert collapsed(collapsed(text)) == collapsed(text)


@given(st.text(st.characters(max_codepoint=0x2FF)))
def test_texts_with_spaces_between_words_are_not_spaced(text):
    assert spaced(text) == text


def test_characters_that_are_words_are_spaced_with_their_marks():
    assert spaced("A北京, ที่x").split() == ["A", "北", "京", ",", "ที่", "x"]


def test_latin():
    assert [latin(one) for one in ("José", "abc1", "ñ\u0301")] == [True] * 3
    assert [latin(one) for one in ("ковид19", "ab北")] == [False] * 2


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Anna Müller's mu\u0308 x",
            "\u5f20\u4f1f\u7684\u59d0\u59d0\u662f\u8c01?",
            "ABC\u2122 d",
            "e\u200dr \ufb01x \u2460",
        ),
        *(
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
            "\u0e01\u0e47\u0e44\u0e21\u0e48",
            " \u0301a",
            "",
        ),
    ],
)
def test_words_have_their_places(text):
    placed = placed_words(text)
    assert [word for word, _, _ in placed] == words(text)
    assert all(words(text[start:end]) == [word] for word, start, end in placed)


@pytest.mark.thorough
def test_a_text_without_spaces_is_one_word_of_any_length():
    assert words("x" * 10**6) == ["x" * 10**6]  # in a moment: no letter copies the word before it
