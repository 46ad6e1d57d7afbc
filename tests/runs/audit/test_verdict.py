"""What the numbers of an audit say."""

from __future__ import annotations

import pytest

from kvw.records.audit import AttackLine, Share
from kvw.runs.audit.verdict import sentences, traces, verdict_of


@pytest.mark.parametrize(
    ("now", "original", "floor", "verdict"),
    [
        (0.4, 1.0, 0.0, "comes back"),
        (0.4, 1.0, 0.4, "holds"),
        (0.1, 1.0, 0.0, "holds"),
        (0.11, 1.0, 0.0, "comes back"),
        (0.4, 1.0, 0.3, "holds"),  # a difference that floating point puts above a tenth
        (0.0, 0.05, 0.0, "says nothing"),
        (0.0, None, 0.0, "holds"),
        (0.5, 0.0, 0.0, "comes back"),
    ],
)
def test_an_attack(now, original, floor, verdict):
    assert verdict_of(now, original, floor, 0.1) == verdict


def line(attack, verdict, found, of=10):
    share = Share(questions=of, found=found, share=found / of)
    return AttackLine(
        attack=attack, title="", now=share, original=None, floor=0.0, floor_by="nothing", floor_questions=None,
        excess=found / of, verdict=verdict,
    )  # fmt: skip


def test_all_attacks_in_words():
    (found,) = sentences(
        [line("asked", "holds", 0), line("name", "comes back", 2), line("noise", "comes back", 4)], 0.1
    )
    assert found == (
        "Not forgotten: 2 of 3 attacks bring back more than 10% above the floor, most of all noise (4 of 10 questions, "
        "floor 0%)."
    )
    first, silent = sentences([line("asked", "holds", 0), line("name", "says nothing", 0)], 0.1)
    assert first == "Holds: none of 1 attack brings back more than 10% above the floor."
    assert silent.startswith("No evidence: name says nothing")
    assert sentences([line("asked", "says nothing", 0)], 0.1)[0].startswith("Nothing is known")


@pytest.mark.parametrize(
    ("now", "original", "gold", "told"),
    [
        (0.0, 0.94, None, True),
        (0.0, 0.94, 0.3, True),
        (0.0, 0.94, 0.05, False),  # gold finds them as improbable
        (0.25, 0.19, None, False),  # it was so before the edit
        (0.39, 0.94, None, True),
        (0.4, 0.94, 0.9, False),  # no further below chance than what counts
        (0.0, None, None, False),
    ],
)
def test_answers_that_are_less_probable_than_those_about_nobody_are_a_trace(now, original, gold, told):
    found = traces(now, original, gold, 0.1)
    assert bool(found) == told
    assert not told or f"area {now:.2f}; before it was 0.94" in found[0]
