"""How sure a mean is, and whether two models differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvw.errors import UserError
from kvw.evaluation.metrics.checks import check_lengths, numbers
from kvw.evaluation.metrics.optional import optional
from kvw.folding import collapsed

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and how far it may be off.

    Args:
        mean: Over all items.
        low: Lower end; None if there are fewer than two independent units, when no interval can be given.
        high: Upper end.
        units: How many independent units were resampled: subjects, or items if no subjects are known.
    """

    mean: float
    low: float | None
    high: float | None
    units: int


@dataclass(frozen=True)
class PairedCounts:
    """McNemar's exact test of two models on the same items.

    Args:
        only_first: Items that only the first model got right.
        only_second: Items that only the second got right.
        p_value: Two-sided; the chance of a split at least as uneven if both models are equally good.
    """

    only_first: int
    only_second: int
    p_value: float


def subjects_of(metadata: Sequence[Mapping[str, Any]], key: str = "subject") -> list[str] | None:
    """The subject of each item, for the ``clusters`` of the functions below; None if no item names one.

    Subjects are folded, so that two spellings of one name are one cluster.

    Args:
        metadata: ``Example.metadata`` of each item.
        key: Name of the field with the person (or whatever the items are about).

    Raises:
        UserError: Some items name a subject and others do not.
    """
    missing = [position for position, row in enumerate(metadata) if row.get(key) is None]
    if len(missing) == len(metadata):
        return None
    if missing:
        raise UserError(
            f"Some items have no {key}, so that it is not known which items belong together.",
            found=f"{len(missing)} of {len(metadata)} without, the first at {missing[0]}",
            do=f"give every item a {key}, or none",
        )
    return [collapsed(str(row[key])) for row in metadata]


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean over items with a percentile bootstrap interval (Efron, 1979; ``scipy.stats.bootstrap``).

    Items about one person stand and fall together, so whole subjects are drawn, with all their items; drawing
    items instead gives intervals that are too narrow. The mean stays the mean over items: subjects with more
    items weigh more.

    Args:
        values: One score per item, failed items included as what they count.
        clusters: The subject of each item; None if items are independent.
        confidence: Share of the resampled means inside the interval.
        resamples: How often to draw.
        seed: Seed of the draws; equal input gives equal intervals.

    Raises:
        UserError: There are no values, one is not a finite number, the lengths differ, the settings make no
            sense, or scipy is not installed.
    """
    array = np.asarray(numbers(values, "values to average"))
    if not np.isfinite(array).all():
        raise UserError(
            "An interval needs finite values.",
            found="an infinite value",
            do="leave the unit out of which it is the score",
        )
    if not 0 < confidence < 1 or resamples < 1:
        raise UserError(
            "The settings of the interval make no sense.",
            found=f"confidence = {confidence}, resamples = {resamples}",
            do="use a confidence between 0 and 1 and at least one resample",
        )
    labels = range(len(array)) if clusters is None else clusters
    check_lengths("values and clusters", array, labels)
    _, unit_of = np.unique(np.asarray(labels), return_inverse=True)
    sums, counts = np.bincount(unit_of, weights=array), np.bincount(unit_of)
    mean = float(array.mean())
    if len(sums) < 2:
        return Interval(mean, None, None, len(sums))
    result = optional("scipy.stats").bootstrap(
        (sums, counts),
        lambda drawn_sums, drawn_counts, axis: drawn_sums.sum(axis=axis) / drawn_counts.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=256,  # bounds memory, changes nothing
        confidence_level=confidence,
        method="percentile",  # unlike BCa it exists when all values are equal
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high), len(sums))


def seeds_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Mean over runs with different seeds, with Student's interval: mean +- t s / sqrt(n), t with n - 1 degrees.

    A bootstrap over three or five seeds would draw from so few values that its intervals are far too narrow. The ends
    can lie outside of the range of the score.

    Args:
        values: One score for each seed.
        confidence: How often such an interval holds the mean over all seeds, were they normally distributed.

    Raises:
        UserError: There are no values, or scipy is not installed.
    """
    array = np.asarray(numbers(values, "values to average"))
    mean, count = float(array.mean()), len(array)
    if count < 2:
        return Interval(mean, None, None, count)
    half = float(optional("scipy.stats").t.ppf((1 + confidence) / 2, count - 1) * array.std(ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half, count)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of second - first over the same items with a paired bootstrap interval.

    The models differ if the interval leaves 0 out. Resampling pairs removes what makes an item easy or hard
    for both; two separate intervals that overlap say nothing about the difference.

    Args:
        first: Scores of one model.
        second: Scores of the other on the same items in the same order.
        clusters: As for :func:`mean_interval`, like the other settings.
        confidence: Share of the resampled differences inside the interval.
        resamples: How often to draw.
        seed: Seed of the draws.

    Raises:
        UserError: The lengths differ, or as for :func:`mean_interval`.
    """
    check_lengths("scores of the two models", first, second)
    differences = [after - before for before, after in zip(first, second, strict=True)]
    return mean_interval(differences, clusters, confidence=confidence, resamples=resamples, seed=seed)


def mcnemar(first_correct: Sequence[bool], second_correct: Sequence[bool]) -> PairedCounts:
    """McNemar's exact test (McNemar, 1947; binomial form): do two models differ on right-or-wrong items?

    Only items on which they disagree count. It takes items as independent; with several questions about one
    subject use :func:`paired_difference` with clusters.

    Args:
        first_correct: Whether one model got each item right.
        second_correct: The same for the other, in the same order.

    Returns:
        A p-value of 1 if they never disagree.

    Raises:
        UserError: The lengths differ, there are no items, or scipy is not installed.
    """
    check_lengths("results of the two models", first_correct, second_correct)
    if not len(first_correct):
        raise UserError("There are no items to compare the models on.", do="give at least one item")
    pairs = list(zip(first_correct, second_correct, strict=True))
    only_first = sum(bool(one and not other) for one, other in pairs)
    only_second = sum(bool(other and not one) for one, other in pairs)
    disagreements = only_first + only_second
    test = optional("scipy.stats").binomtest
    p_value = float(test(only_first, disagreements, 0.5).pvalue) if disagreements else 1.0
    return PairedCounts(only_first, only_second, p_value)
