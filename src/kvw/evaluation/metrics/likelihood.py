"""How probable the right answer is, by itself and beside wrong ones.

All functions take a *loss*: the mean negative log likelihood of the answer's tokens, in nats, not below 0. So nothing
underflows, however far a model has collapsed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvw.evaluation.metrics.checks import losses


def answer_probability(loss: float) -> float:
    """Length-normalised probability of an answer: P(a|q)^(1/|a|) = exp(-loss) (TOFU, Maini et al., 2024).

    Returns:
        Between 0 and 1.

    Raises:
        UserError: The loss is negative or not a number.
    """
    return math.exp(-losses([loss], "losses")[0])


def normalised_probability(loss: float, wrong_losses: Sequence[float]) -> float:
    """Probability of the right answer among alternatives: p / (p + sum of the wrong p), each exp(-loss).

    TOFU's number for real authors and world facts, CLEAR's for real faces and the real world. Every
    probability is length-normalised before the division, as in TOFU's code and logs; its paper writes plain
    probabilities. With n equally likely wrong answers it is 1 / (1 + n), so sets with different numbers of
    alternatives cannot be compared.

    Args:
        loss: Loss of the right answer.
        wrong_losses: Losses of the wrong answers, at least one.

    Returns:
        Between 0 and 1; 0 if the right answer is impossible (infinite loss).

    Raises:
        UserError: There is no wrong answer, or a loss is negative or not a number.
    """
    (right,) = losses([loss], "losses")
    wrong = losses(wrong_losses, "losses of wrong answers")
    if right == math.inf:
        return 0.0
    return 1 / (1 + math.fsum(_exp(right - other) for other in wrong))


def _exp(exponent: float) -> float:
    """exp, infinite where it is too large for a float."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
