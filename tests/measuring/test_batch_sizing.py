"""Batches that fit: nothing lost, nothing twice, halved when memory runs out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvw.errors import UserError
from kvw.measuring.batch_sizing import run_batched

pytestmark = pytest.mark.thorough


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_every_item_runs_once_longest_first_within_the_budget(lengths, budget):
    batches = list(run_batched(list(range(len(lengths))), lengths, lambda items: list(items), budget=budget))
    order = [index for indices, _ in batches for index in indices]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    for indices, result in batches:
        assert result == indices
        assert len(indices) == 1 or len(indices) * max(lengths[index] for index in indices) <= budget


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("MPS backend out of memory")]
)
def test_batches_are_halved_until_they_fit(error):
    sizes = []

    def run(items):
        sizes.append(len(items))
        if len(items) > 3:
            raise error
        return len(items)

    results = list(run_batched(range(10), [1] * 10, run, budget=10))
    assert sizes[:3] == [10, 5, 2]
    assert sum(result for _, result in results) == 10


def test_a_single_item_that_does_not_fit_is_the_users_problem():
    def run(items):
        raise MemoryError

    with pytest.raises(UserError, match="single example"):
        list(run_batched([1, 2], [700, 7], run, budget=1000))


def test_other_errors_come_through():
    def run(items):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(run_batched([1], [1], run, budget=1))
