"""What an edit does not need is left out."""

from hypothesis import given
from hypothesis import strategies as st

from kvw.selection.thinning import thinned


@given(st.integers(1, 60), st.data())
def test_with_tries_to_spare_only_what_is_needed_stays(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    assert thinned(range(count), lambda some: needed <= set(some), 10_000) == sorted(needed)


@given(st.integers(1, 60), st.integers(0, 30), st.data())
def test_what_is_left_is_enough_however_few_tries_there_are(count: int, tries: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, count - 1)))
    asked = []

    def enough(some: list[int]) -> bool:
        asked.append(some)
        return needed <= set(some)

    kept = thinned(range(count), enough, tries)
    assert needed <= set(kept)
    assert kept
    assert kept == sorted(kept)
    assert len(asked) <= tries


def test_those_that_can_best_be_spared_go_first() -> None:
    assert thinned([3, 1, 2], lambda some: len(some) >= 2, 10) == [1, 2]


def test_one_that_takes_the_place_of_two_is_found() -> None:
    assert thinned(range(8), lambda some: 7 in some or {2, 5} <= set(some), 50) == [7]
