import math

import numpy as np
import pytest

from kvw.errors import UserError
from kvw.evaluation.metrics import (
    Interval,
    PairedCounts,
    mcnemar,
    mean_interval,
    paired_difference,
    subjects_of,
)

VALUES = [float(value) for value in np.random.default_rng(0).random(60)]
SUBJECTS = [f"person {index // 6}" for index in range(60)]


def test_the_interval_is_the_percentiles_of_resampled_means():
    drawn = np.random.default_rng(1).choice(VALUES, size=(20000, 60)).mean(axis=1)
    found = mean_interval(VALUES, resamples=20000)
    assert found.mean == np.mean(VALUES)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.004)
    assert found.units == 60


def test_subjects_are_drawn_whole():
    # All items of a subject agree: ten independent values and not sixty.
    agreeing = [VALUES[index // 6] for index in range(60)]
    alone = mean_interval([VALUES[index] for index in range(10)])
    clustered = mean_interval(agreeing, SUBJECTS)
    assert clustered == Interval(pytest.approx(alone.mean), pytest.approx(alone.low), pytest.approx(alone.high), 10)
    naive = mean_interval(agreeing)
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_subjects_with_more_items_weigh_more():
    found = mean_interval([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert found.mean == 0.75
    assert (found.low, found.high) == (0, 1)


def test_the_settings_change_what_they_should():
    usual = mean_interval(VALUES)
    assert mean_interval(VALUES) == usual
    assert mean_interval(VALUES, seed=1) != usual
    assert mean_interval(VALUES, resamples=500) != usual
    narrow = mean_interval(VALUES, confidence=0.5)
    assert usual.low < narrow.low < narrow.high < usual.high


def test_the_order_of_items_within_subjects_changes_nothing():
    order = np.random.default_rng(3).permutation(60)
    shuffled = mean_interval([VALUES[index] for index in order], [SUBJECTS[index] for index in order])
    found = mean_interval(VALUES, SUBJECTS)
    assert (shuffled.low, shuffled.high) == pytest.approx((found.low, found.high), abs=1e-12)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([0.5] * 7) == Interval(0.5, 0.5, 0.5, 7)


def test_one_subject_gives_no_interval():
    assert mean_interval([0.0, 1.0], ["a", "a"]) == Interval(0.5, None, None, 1)
    assert mean_interval([0.3]) == Interval(0.3, None, None, 1)


def test_a_paired_difference_sees_what_separate_intervals_do_not():
    better = [value + 0.05 for value in VALUES]
    first, second = mean_interval(VALUES), mean_interval(better)
    assert first.high > second.low
    found = paired_difference(VALUES, better)
    assert found.low == pytest.approx(0.05)
    assert found.high == pytest.approx(0.05)
    assert paired_difference(better, VALUES).high < 0
    clustered = paired_difference(VALUES, VALUES[::-1], SUBJECTS, confidence=0.5, resamples=300, seed=2)
    differences = [after - before for before, after in zip(VALUES, VALUES[::-1], strict=True)]
    assert clustered == mean_interval(differences, SUBJECTS, confidence=0.5, resamples=300, seed=2)


def test_mcnemar_by_hand():
    first = [True] * 5 + [True] * 6 + [False] * 1
    second = [True] * 5 + [False] * 6 + [True] * 1
    # Seven disagreements, one to six or more uneven: 2 * (1 + 7) / 2^7.
    assert mcnemar(first, second) == PairedCounts(6, 1, pytest.approx(0.125))
    assert mcnemar(second, first) == PairedCounts(1, 6, pytest.approx(0.125))
    assert mcnemar([True, False], [True, False]) == PairedCounts(0, 0, 1)


def test_subjects_come_from_metadata():
    assert subjects_of([{"subject": "ada"}, {"subject": 7}]) == ["ada", "7"]
    assert len(set(subjects_of([{"subject": one} for one in ("Zoë", "ZOE\u0308 ", "zoë")]))) == 1
    assert subjects_of([{"person": "ada"}], key="person") == ["ada"]
    assert subjects_of([{}, {"split": "forget"}]) is None
    with pytest.raises(UserError, match=r"1 of 2 without, the first at 1"):
        subjects_of([{"subject": "ada"}, {"subject": None}])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "no values to average"),
        (lambda: mean_interval([math.inf]), "finite"),
        (lambda: mean_interval([math.nan]), "not numbers"),
        (lambda: mean_interval([1, 2], ["a"]), "2 values and 1 values"),
        (lambda: mean_interval([1, 2], confidence=1), "confidence = 1"),
        (lambda: mean_interval([1, 2], resamples=0), "resamples = 0"),
        (lambda: paired_difference([1], [1, 2]), "1 values and 2 values"),
        (lambda: mcnemar([True], []), "1 values and 0 values"),
        (lambda: mcnemar([], []), "no items"),
    ],
)
def test_errors(call, message):
    with pytest.raises(UserError, match=message):
        call()
