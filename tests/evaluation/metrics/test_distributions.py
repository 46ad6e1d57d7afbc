"""Probabilities, truth ratios, forget quality and utility: exact values, errors and limits."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from kvw.errors import UserError
from kvw.evaluation.metrics import (
    ForgetQuality,
    SetUtility,
    answer_probability,
    clear_forget_quality,
    clear_truth_ratios,
    forget_quality,
    forget_truth_ratio,
    harmonic_mean,
    jensen_shannon,
    model_utility,
    normalised_probability,
    retain_truth_ratio,
    truth_ratio,
)

NAN, INF = math.nan, math.inf


def test_answer_probability():
    assert answer_probability(0.0) == 1
    assert answer_probability(math.log(4)) == pytest.approx(0.25)
    assert answer_probability(INF) == 0


def test_normalised_probability():
    assert normalised_probability(math.log(2), [math.log(4), math.log(4)]) == pytest.approx(0.5)
    assert normalised_probability(2.0, [2.0] * 3) == pytest.approx(0.25)
    # exp(-900) is 0 in a float; the quotient is not.
    assert normalised_probability(900.0, [900.0, 900.0 + math.log(2)]) == pytest.approx(1 / 2.5)
    assert normalised_probability(5000.0, [1.0]) == 0
    assert normalised_probability(1.0, [INF]) == 1
    assert normalised_probability(INF, [INF]) == 0


def test_truth_ratio():
    # Two wrong answers of probability 1/2 and 1/8 have the geometric mean 1/4; the right one has 1/2.
    losses = [math.log(2), math.log(8)]
    assert truth_ratio(math.log(2), losses) == pytest.approx(0.5)
    assert truth_ratio(math.log(2), losses, "right/wrong") == pytest.approx(2)
    assert truth_ratio(2000.0, [1.0]) == INF
    assert truth_ratio(2000.0, [1.0], "right/wrong") == 0
    assert truth_ratio(INF, [1.0]) == INF
    assert truth_ratio(1.0, [INF]) == 0


@pytest.mark.parametrize(("ratio", "forget", "retain"), [(0.25, 0.25, 0.75), (4, 0.25, 0), (1, 1, 0), (0, 0, 1)])
def test_the_two_uses_of_a_truth_ratio(ratio, forget, retain):
    assert forget_truth_ratio(ratio) == forget
    assert retain_truth_ratio(ratio) == retain
    inverse = 1 / ratio if ratio else INF
    assert forget_truth_ratio(inverse) == forget
    assert retain_truth_ratio(inverse, "right/wrong") == retain


def test_an_infinite_truth_ratio():
    assert forget_truth_ratio(INF) == 0
    assert retain_truth_ratio(INF) == 0
    assert retain_truth_ratio(0.0, "right/wrong") == 0


def test_forget_quality_by_hand():
    # Distribution functions of {1, 2} and {2.5, 3} differ by 1; 2 of the 6 orders of four values do that.
    assert forget_quality([1, 2], [2.5, 3]) == ForgetQuality(1, pytest.approx(2 / 6), True)


def test_the_exact_p_value_is_used_for_large_sets_too():
    generator = np.random.default_rng(0)
    samples = generator.normal(size=11000), generator.normal(0.03, size=11000)
    found = forget_quality(*samples)
    assert found.exact
    assert found.p_value == ks_2samp(*samples, method="exact").pvalue != ks_2samp(*samples).pvalue


def test_the_result_says_where_the_p_value_is_not_exact(recwarn):
    """Every second value of an even sequence: the closest two samples can be, where the exact sum rounds to above 1."""
    samples = [float(value) for value in range(0, 600, 2)], [float(value) for value in range(1, 600, 2)]
    found = forget_quality(*samples)
    assert found == ForgetQuality(pytest.approx(1 / 300), ks_2samp(*samples, method="asymp").pvalue, False)
    assert found.p_value == pytest.approx(1)
    assert list(recwarn) == []


def test_jensen_shannon_by_hand():
    # Two bins, split at the pooled median 3: (2/3, 1/3) against (1/3, 2/3), whose mean is (1/2, 1/2).
    divergence = 2 / 3 * math.log2(2 / 3 / 0.5) + 1 / 3 * math.log2(1 / 3 / 0.5)
    found = jensen_shannon([1.0, 1.0, 3.0], [2.0, 3.0, 4.0], bins=2)
    assert found == pytest.approx(math.sqrt(divergence))
    assert jensen_shannon([0.0, 1.0], [2.0, 3.0]) == 1
    assert jensen_shannon([1.0, 2.0, INF], [1.0, 2.0, INF]) == 0
    assert jensen_shannon([5.0], [5.0, 5.0]) == 0


def test_more_bins_see_more():
    first, second = [1.0, 4.0, 5.0, 8.0], [2.0, 3.0, 6.0, 7.0]
    assert jensen_shannon(first, second, bins=2) == 0
    assert jensen_shannon(first, second, bins=8) == 1


def test_clears_variants():
    paraphrased, perturbed = [1.0, 2.0], [[2.0, 3.0], [6.0, 5.0]]
    assert clear_truth_ratios(paraphrased, perturbed) == [math.exp(4 - 1), math.exp(4 - 2)]
    expected = 1 - jensenshannon([1, 2, 3], [2, 2, 2])
    assert clear_forget_quality([1, 2, 3], [2, 2, 2]) == pytest.approx(expected, abs=1e-15)
    assert clear_forget_quality([1, 0], [0, 1]) == pytest.approx(1 - math.sqrt(math.log(2)))


def test_utility():
    assert harmonic_mean([1, 1 / 3]) == pytest.approx(0.5)
    assert harmonic_mean([0.9, 0, 0.9]) == 0
    sets = [SetUtility(1, 1, 1), SetUtility(0.5, 0.5, 0.5), SetUtility(0.25, 0.25, 0.25)]
    assert model_utility(*sets) == pytest.approx(9 / (3 + 6 + 12))
    assert model_utility(SetUtility(1, 1, 0), *sets[:2]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: answer_probability(NAN), "losses hold values that are not numbers"),
        (lambda: answer_probability(-0.1), "not log probabilities"),
        (lambda: normalised_probability(1, []), "There are no losses of wrong answers"),
        (lambda: normalised_probability(1, [1, NAN]), "NaN at 1 of 2 positions, the first at 1"),
        (lambda: truth_ratio(1, []), "There are no losses of perturbed answers"),
        (lambda: truth_ratio(-1, [1]), "paraphrased answers must not be negative"),
        (lambda: truth_ratio(INF, [INF]), "differences of the losses hold"),
        (lambda: forget_truth_ratio(NAN), "truth ratios hold"),
        (lambda: retain_truth_ratio(NAN), "truth ratios hold"),
        (lambda: clear_truth_ratios([1], [[1], [2]]), "1 values and 2 values"),
        (lambda: clear_truth_ratios([], []), "There are no losses"),
        (lambda: forget_quality([], [1]), "no truth ratios of the unlearned model"),
        (lambda: forget_quality([1], [NAN]), "truth ratios of the gold model hold"),
        (lambda: jensen_shannon([], [1]), "no values of the first sample"),
        (lambda: jensen_shannon([1], [NAN]), "values of the second sample hold"),
        (lambda: jensen_shannon([1], [1], bins=1), "bins must be at least 2"),
        (lambda: clear_forget_quality([1], [1, 2]), "1 values and 2 values"),
        (lambda: clear_forget_quality([0, 0], [1, 2]), "nothing but zeros"),
        (lambda: clear_forget_quality([-1, 2], [1, 2]), "negative"),
        (lambda: clear_forget_quality([INF, 2], [1, 2]), "infinite"),
        (lambda: clear_forget_quality([1], []), "compares with the gold model, and there is none"),
        (lambda: harmonic_mean([]), "There are no values to average"),
        (lambda: harmonic_mean([1, -1]), "not negative"),
        (lambda: harmonic_mean([1, NAN]), "NaN at 1 of 2"),
    ],
)
def test_errors(call, message):
    with pytest.raises(UserError, match=message):
        call()
