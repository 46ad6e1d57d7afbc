"""What a model still can do: means over several sets in one number."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kvw.errors import UserError
from kvw.evaluation.metrics.checks import numbers


@dataclass(frozen=True)
class SetUtility:
    """Three means over the items of one set, each between 0 and 1.

    Args:
        probability: Mean of ``answer_probability`` on the retain set, of ``normalised_probability`` on sets with
            alternatives (real authors, world facts).
        rouge_l_recall: Mean recall of ``rouge_l``.
        truth_ratio: Mean of ``retain_truth_ratio``.
    """

    probability: float
    rouge_l_recall: float
    truth_ratio: float


def harmonic_mean(values: Sequence[float]) -> float:
    """n / (1/x_1 + ... + 1/x_n); between the smallest and the largest value, 0 if any value is 0.

    Raises:
        UserError: There are no values, or one is negative or not a number.
    """
    floats = numbers(values, "values to average")
    if min(floats) < 0:
        raise UserError(
            "The harmonic mean needs values that are not negative.",
            found=f"{min(floats)}",
            do="give scores of at least 0",
        )
    # The mean lies between the extremes, but its rounding need not.
    return min(max(statistics.harmonic_mean(floats), min(floats)), max(floats))


def model_utility(retain: SetUtility, real_authors: SetUtility, world_facts: SetUtility) -> float:
    """TOFU's model utility (Maini et al., 2024): the harmonic mean of nine numbers, none from the forget set.

    One number of 0 makes it 0, and the smallest dominates. Means are taken over items first, then over the
    nine numbers.

    Args:
        retain: The retain set (fictitious authors that are kept).
        real_authors: Real authors.
        world_facts: Facts about the world.

    Returns:
        Between 0 and 1.

    Raises:
        UserError: A number is negative or not a number.
    """
    return harmonic_mean(
        [
            number
            for part in (retain, real_authors, world_facts)
            for number in (part.probability, part.rouge_l_recall, part.truth_ratio)
        ]
    )
