"""The truth ratio: how probable wrong answers are beside a right one that was not trained on.

Losses are mean negative log likelihoods per answer token, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from kvw.evaluation.metrics.checks import check_lengths, losses, numbers

Orientation = Literal["wrong/right", "right/wrong"]
"""What stands above the line. TOFU and FIUBench: wrong / right. CLEAR: right / wrong."""


def truth_ratio(
    paraphrased_loss: float, perturbed_losses: Sequence[float], orientation: Orientation = "wrong/right"
) -> float:
    """Truth ratio of one item (TOFU, Maini et al., 2024).

    wrong / right = (geometric mean of P(perturbed|q)^(1/|a|)) / P(paraphrased|q)^(1/|a|)
    = exp(paraphrased loss - mean of the perturbed losses).

    The equation of the paper has the arithmetic mean of the wrong probabilities; its code, and the logs it
    published, have the geometric one. Only the perturbed answers of the same item belong into the mean.

    Args:
        paraphrased_loss: Loss of the right answer in other words. Sets without paraphrases (real authors, world
            facts) take the answer itself.
        perturbed_losses: Losses of the wrong answers of this item, at least one.
        orientation: ``right/wrong`` gives the inverse.

    Returns:
        0 or more, 1 if right and wrong answers are equally probable; infinite where a float is too small.

    Raises:
        UserError: There is no perturbed answer, a loss is negative or not a number, or both sides are infinite.
    """
    (right,) = losses([paraphrased_loss], "losses of paraphrased answers")
    wrong = fmean(losses(perturbed_losses, "losses of perturbed answers"))
    (exponent,) = numbers([right - wrong], "differences of the losses")
    try:
        return math.exp(exponent if orientation == "wrong/right" else -exponent)
    except OverflowError:
        return math.inf


def forget_truth_ratio(ratio: float) -> float:
    """What a forget set's average is taken of: min(TR, 1/TR), the same in both orientations.

    1 if right and wrong answers are equally probable (nothing is known, or all is forgotten), near 0 if the
    right one, or the wrong ones, are much more probable.

    Args:
        ratio: From :func:`truth_ratio`, in either orientation.

    Returns:
        Between 0 and 1.

    Raises:
        UserError: The ratio is not a number.
    """
    (value,) = numbers([ratio], "truth ratios")
    return min(value, 1 / value if value else 0.0)


def retain_truth_ratio(ratio: float, orientation: Orientation = "wrong/right") -> float:
    """What the average of every other set is taken of: max(0, 1 - wrong/right), a part of the model utility.

    Args:
        ratio: From :func:`truth_ratio`.
        orientation: That of ``ratio``; the wrong one turns the number around without any sign of it.

    Returns:
        Between 0 and 1; 1 if wrong answers are impossible, 0 if they are as probable as the right one.

    Raises:
        UserError: The ratio is not a number.
    """
    (value,) = numbers([ratio], "truth ratios")
    if orientation == "right/wrong":
        value = 1 / value if value else math.inf
    return max(0.0, 1 - value)


def clear_truth_ratios(paraphrased_losses: Sequence[float], perturbed_losses: Sequence[Sequence[float]]) -> list[float]:
    """Truth ratios of a whole set as CLEAR's code computes them, to reproduce its numbers and for nothing else.

    right / wrong, but with one mean over the perturbed losses of *all* items:
    exp(mean of all perturbed losses - paraphrased loss). An item's own wrong answers hardly matter.

    Args:
        paraphrased_losses: One per item.
        perturbed_losses: For each item the losses of its wrong answers.

    Returns:
        One ratio per item, right / wrong.

    Raises:
        UserError: The lengths differ, there are no items, or a loss is negative or not a number.
    """
    check_lengths("paraphrased and perturbed losses", paraphrased_losses, perturbed_losses)
    every_loss = losses([loss for item in perturbed_losses for loss in item], "losses of perturbed answers")
    return [truth_ratio(loss, every_loss, "right/wrong") for loss in paraphrased_losses]
