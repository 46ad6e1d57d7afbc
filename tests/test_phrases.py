"""Sequences of words inside texts."""

from __future__ import annotations

from kvw.phrases import Phrases


def test_whole_phrases_are_found_at_every_place():
    phrases = Phrases([("a",), ("a", "b"), ("a", "b", "c"), ("x", "a")])
    assert list(phrases.inside(["x", "a", "b", "a", "bc"])) == [("x", "a"), ("a",), ("a", "b"), ("a",)]
    assert list(phrases.inside([])) == []
    assert list(Phrases([]).inside(["a"])) == []
