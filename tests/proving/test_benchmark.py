"""The planted people as a benchmark."""

from __future__ import annotations

import pytest

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import two_folds
from kvw.proving.planted import group
from kvw.proving.requests import HALVES, Half

PEOPLE = get_benchmark("people")


@pytest.mark.parametrize("half", HALVES)
def test_the_whole_group_of_a_half_is_forgotten(half: Half) -> None:
    data = PEOPLE.load(setting=half)
    assert {split: list(tasks) for split, tasks in data.splits.items()} == {
        "forget": ["question", "held out"],
        "retain": ["question"],
        "unused": ["question"],
    }
    assert data.forget_subjects == set(group(half))
    others = [item for split in ("retain", "unused") for item in data.task(split, "question").items]
    assert not {item.subject for item in others} & data.forget_subjects
    assert data.training["forget"] == data.task("forget", "question").items
    asked = {item.question for item in data.training["forget"]}
    assert not asked & {item.question for item in data.task("forget", "held out").items}
    for item in (*data.training["forget"], *others):
        (fact,) = item.metadata["keywords"]
        assert fact in item.answer
        assert item.subject in item.question


def test_no_person_is_in_both_halves_of_an_evaluation() -> None:
    for half in two_folds(PEOPLE.load(setting="choosing")):
        first, second = ({item.subject for item in data.task("retain", "question").items} for data in half)
        assert first
        assert second
        assert not first & second
