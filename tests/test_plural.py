"""Counts with their nouns."""

from __future__ import annotations

import pytest

from kvw.plural import agreed, counted, some


@pytest.mark.parametrize(("count", "text"), [(0, "0 names"), (1, "1 name"), (2, "2 names"), (1000, "1,000 names")])
def test_one_is_singular(count, text):
    assert counted(count, "name") == text


def test_of_many_names_three_are_shown():
    assert some(["A", "B", "C"]) == "A, B, C"
    assert some(["A", "B", "C", "D", "E"]) == "A, B, C and 2 more"


def test_words_agree_with_their_count():
    assert [agreed(count, "names", "name") for count in (0, 1, 2)] == ["name", "names", "name"]
