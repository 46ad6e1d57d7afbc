"""How far a model's truth ratios are from those of a model that never saw the forget set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvw.errors import UserError
from kvw.evaluation.metrics.checks import check_lengths, numbers
from kvw.evaluation.metrics.optional import optional
from kvw.settings import check_at_least

BINS = 20
"""Default bins of :func:`jensen_shannon`: 15 items of each model in a bin on TOFU's sets of 300."""


@dataclass(frozen=True)
class ForgetQuality:
    """Two-sample Kolmogorov-Smirnov test of two sets of truth ratios.

    Args:
        statistic: Largest distance of the two empirical distribution functions, 0 to 1; 0 is best.
        p_value: Chance of a statistic at least as large if both sets come from one distribution, 0 to 1; near
            1 is best, and is what TOFU calls forget quality.
        exact: Whether the p-value is the exact one. It is asymptotic where the exact sum leaves 0 to 1 by
            rounding, which happens close to 1, and for two sizes of more than 46,000 without common divisor.
    """

    statistic: float
    p_value: float
    exact: bool


def forget_quality(unlearned: Sequence[float], gold: Sequence[float]) -> ForgetQuality:
    """TOFU's forget quality: whether truth ratios on the forget set tell the unlearned from the gold model.

    The p-value is the exact one (``scipy.stats.ks_2samp``); the asymptotic one is up to half as large on 300
    items. It depends on the number of items, so compare equal sets only. A high value means that no
    difference was found, which with few items is no evidence of forgetting.

    Args:
        unlearned: Truth ratios of the model under test on the forget set, not clipped to min(TR, 1/TR).
        gold: Those of a model trained only on the retain set, on the same items in the same orientation.

    Raises:
        UserError: One of the sets is empty or holds NaN, or scipy is not installed.
    """
    samples = numbers(unlearned, "truth ratios of the unlearned model"), _gold(gold)
    test = optional("scipy.stats").ks_2samp
    with warnings.catch_warnings():
        # scipy warns that it fell back to the asymptotic p-value; here the result says so.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            result, exact = test(*samples, method="exact"), True
        except RuntimeWarning:
            result, exact = test(*samples, method="asymp"), False
    return ForgetQuality(statistic=float(result.statistic), p_value=float(result.pvalue), exact=exact)


def jensen_shannon(first: Sequence[float], second: Sequence[float], bins: int = BINS) -> float:
    """Jensen-Shannon distance of two samples' histograms: sqrt((KL(p||m) + KL(q||m)) / 2), m = (p + q) / 2, base 2.

    The bins are shared and each holds about as many of the pooled values, so that no strictly increasing
    change of scale matters and no outlier decides. Histograms of small samples differ by chance: the distance
    of two samples from one distribution is above 0, the more so the more bins, so compare equal sizes only.

    Args:
        first: Any numbers, infinite ones allowed, in any order.
        second: The other sample, of any size.
        bins: Most bins; there are fewer where values repeat.

    Returns:
        0 for equal histograms to 1 for histograms without overlap.

    Raises:
        UserError: One of the samples is empty or holds NaN, there are fewer than two bins, or scipy is not
            installed.
    """
    one = np.asarray(numbers(first, "values of the first sample"))
    other = np.asarray(numbers(second, "values of the second sample"))
    check_at_least("bins", bins, 2)
    pooled = np.sort(np.concatenate([one, other]))
    # Observed values as edges: an interpolated edge would move with the scale, and fail beside an infinite value.
    edges = np.unique(pooled[[len(pooled) * edge // bins for edge in range(1, bins)]])
    return _distance(_histogram(one, edges), _histogram(other, edges), base=2)


def clear_forget_quality(unlearned: Sequence[float], gold: Sequence[float]) -> float:
    """CLEAR's forget quality as its code computes it, to reproduce its numbers and for nothing else.

    1 - the Jensen-Shannon distance (natural logarithm) of the two *lists* of truth ratios, each divided by its
    sum as if the items were the outcomes of one distribution. It depends on which item has which ratio, not on
    how ratios are distributed; with :func:`kvw.evaluation.metrics.clear_truth_ratios` the perturbed answers
    cancel out in the division. The smallest possible value is 1 - sqrt(log 2) = 0.167.

    Args:
        unlearned: Truth ratios (right / wrong) of the model under test, one per forget item.
        gold: Those of the model trained only on the retain set, for the same items in the same order.

    Returns:
        Between 0.167 and 1, 1 for proportional lists.

    Raises:
        UserError: The lists differ in length, are empty, hold NaN, negative or infinite values or only zeros,
            or scipy is not installed.
    """
    reference = _gold(gold)
    check_lengths("truth ratios of the two models", unlearned, reference)
    lists = [np.asarray(numbers(unlearned, "truth ratios of the unlearned model")), np.asarray(reference)]
    if any(not np.isfinite(ratios).all() or ratios.min() < 0 or ratios.sum() == 0 for ratios in lists):
        raise UserError(
            "CLEAR's forget quality divides the truth ratios by their sum, which is not possible here.",
            found="negative or infinite ratios, or nothing but zeros",
            do="use forget_quality or jensen_shannon",
        )
    return 1 - _distance(lists[0], lists[1], base=None)


def _gold(gold: Sequence[float]) -> list[float]:
    if not len(gold):
        raise UserError(
            "Forget quality compares with the gold model, and there is none.",
            found="no truth ratios of a gold model",
            do="load or train a model that saw only the retain set, and score it on the forget set",
        )
    return numbers(gold, "truth ratios of the gold model")


def _histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return counts / len(values)


def _distance(first: NDArray[np.float64], second: NDArray[np.float64], base: float | None) -> float:
    distance = float(optional("scipy.spatial.distance").jensenshannon(first, second, base=base))
    # All input is finite, so this is the root of a rounding error just below 0.
    return 0.0 if math.isnan(distance) else min(distance, 1.0)
