"""Ranges of layers, as they are written on a command line."""

import pytest

from kvw.errors import UserError
from kvw.selection.windows import parse_windows, windows


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("all", [(1, 7)]),
        ("halves", [(1, 3), (4, 7)]),
        ("thirds", [(1, 2), (3, 4), (5, 7)]),
        ("quarters", [(1, 1), (2, 3), (4, 5), (6, 7)]),
        ("each", [(layer, layer) for layer in range(1, 8)]),
        ("4", [(1, 4), (3, 6), (4, 7)]),
        ("1", [(layer, layer) for layer in range(1, 8)]),
        ("99", [(1, 7)]),
        ("2:3, 0:5", [(2, 3), (0, 5)]),
        ("all,1:7,halves,1:3", [(1, 7), (1, 3), (4, 7)]),
    ],
)
def test_what_is_asked_for_becomes_ranges_each_once(text, found):
    assert windows(parse_windows(text), range(1, 8)) == found


def test_every_layer_is_in_some_window_that_slides():
    for count in range(1, 12):
        for width in range(1, 14):
            found = windows([(-width, 0)], range(count))
            assert {layer for first, last in found for layer in range(first, last + 1)} == set(range(count))
            assert {last - first + 1 for first, last in found} == {min(width, count)}


def test_more_parts_than_layers_are_single_layers():
    assert windows(["quarters"], [4, 9]) == [(4, 4), (9, 9)]


@pytest.mark.parametrize("text", ["", " , ", "half", "0", "-2", "3:1", "3:", ":3", "a:b", "1.5"])
def test_other_words_are_refused(text):
    with pytest.raises(UserError, match="FIRST:LAST") as refused:
        parse_windows(text)
    assert refused.value.what == "--windows names ranges of layers."


def test_a_range_without_layers_is_refused():
    with pytest.raises(UserError, match="8:9; the method changes 1 to 7"):
        windows([(8, 9)], range(1, 8))
