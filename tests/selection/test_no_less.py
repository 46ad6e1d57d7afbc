"""Whether an edit forgets no less, asked about few questions if it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvw.selection.no_less import NoLess
from kvw.selection.scoring import Score
from kvw.selection.splits import FORGET, OWN_WORDS, TEXT

QUESTION = st.tuples(st.booleans(), st.sampled_from([0.0, 0.0625, 0.25, 1.0]))
QUESTIONS = st.lists(QUESTION, min_size=1, max_size=12)


def score_of(pairs: Sequence[tuple[bool, float]]) -> Score:
    answered, probabilities = zip(*pairs, strict=True)
    return Score(answered, probabilities, (1.0,) * len(pairs), (2,) * len(pairs))


class Lookup:
    """An edit is the answers to its questions, by split."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[int]]] = []

    def scores(self, edit: Any, names: Sequence[str], places: Any) -> dict[str, Score]:
        self.asked.append({name: list(places[name]) for name in names})
        return {name: score_of([edit[name][place] for place in places[name]]) for name in names}


@pytest.mark.thorough
@given(first=QUESTIONS, own=QUESTIONS, data=st.data())
def test_it_says_what_all_questions_say_whatever_was_asked_before(first: Any, own: Any, data: st.DataObject) -> None:
    answered, left = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([0.02, 0.1, 0.5]))
    scores = {FORGET: score_of(first), OWN_WORDS: score_of(own), TEXT: score_of([(True, 1.0)])}
    lookup = Lookup()
    enough = NoLess(lookup, scores, answered, left)  # type: ignore[arg-type]
    for _ in range(4):
        edit = {
            name: data.draw(st.lists(QUESTION, min_size=many, max_size=many))
            for name, many in ((FORGET, len(first)), (OWN_WORDS, len(own)))
        }
        pairs = [*edit[FORGET], *edit[OWN_WORDS]]
        plain = sum(one for one, _ in pairs) <= answered and sum(value for _, value in pairs) / len(pairs) <= left
        assert enough(edit) == plain  # type: ignore[arg-type]


def test_the_questions_that_were_left_most_are_asked_first_and_the_others_only_if_these_are_forgotten() -> None:
    gone, left = (False, 0.0), (False, 0.9)
    lookup = Lookup()
    enough = NoLess(lookup, {FORGET: score_of([gone] * 8)}, 0, 0.1)  # type: ignore[arg-type]
    later: Any = {FORGET: [gone] * 7 + [left]}
    assert not enough(later)
    assert not enough(later)
    all_gone: Any = {FORGET: [gone] * 8}
    assert enough(all_gone)
    counts = [[len(one[FORGET]) for one in lookup.asked[:2]], [len(one[FORGET]) for one in lookup.asked[2:3]]]
    assert counts == [[2, 6], [2]]
    assert 7 in lookup.asked[2][FORGET]
    assert sum(len(one[FORGET]) for one in lookup.asked[3:]) == 8
