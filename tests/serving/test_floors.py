"""What can be said of a share from a number of questions, and the floor that follows from it."""

from __future__ import annotations

import random

import pytest
from scipy.stats import beta

from kvw.errors import UserError
from kvw.serving.floors import MARGIN, enough, floor_of, largest_share, raised


@pytest.mark.parametrize(("caught", "asked"), [(0, 28), (0, 1), (6, 28), (1, 499), (4, 5), (120, 1000)])
def test_the_bound_is_clopper_and_pearsons(caught, asked):
    assert largest_share(caught, asked) == pytest.approx(beta.ppf(0.95, caught + 1, asked - caught), abs=1e-6)


def test_what_is_caught_always_says_nothing():
    assert largest_share(3, 3) == 1


def test_three_hundred_questions_promise_one_in_a_hundred():
    assert enough(0.01) == 299
    assert largest_share(0, 299) <= 0.01 < largest_share(0, 298)
    assert enough(0.0) is None


def test_a_floor_lets_as_many_through_as_its_share_can_be_said_of():
    scores = [number / 1000 for number in range(1000)]
    for rate, reached in ((0.0, 0), (0.001, 0), (0.01, 4), (0.1, 84), (0.5, 473)):
        floor = floor_of(scores, [], rate)
        assert sum(score >= floor for score in scores) == reached
        assert reached == 0 or largest_share(reached, 1000) <= rate < largest_share(reached + 1, 1000)
    with pytest.raises(UserError, match="must not be caught"):
        floor_of([], [], 0.1)


def test_a_floor_from_few_lies_towards_what_must_be_caught():
    few = [0.1, 0.2, 0.19]
    assert floor_of(few, [1.0, 0.8, 0.05], 0.01) == pytest.approx(0.2 + MARGIN * 0.6)
    assert floor_of(few, [0.05], 0.01) == pytest.approx(0.2)  # nothing higher is to be caught
    assert floor_of([0.1] * 1000, [0.8], 0.01) == pytest.approx(0.1)  # enough of them need no margin
    assert raised(0.2, [0.1]) == 0.2


def test_the_share_is_kept_in_95_of_100_samples():
    drawn = random.Random(0)
    held = sum(1 - floor_of([drawn.random() for _ in range(200)], [], 0.03) <= 0.03 for _ in range(200))
    assert 0.91 * 200 <= held < 200
