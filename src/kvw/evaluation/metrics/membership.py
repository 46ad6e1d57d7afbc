"""Whether a text looks like training data: membership inference from token scores."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from kvw.errors import UserError
from kvw.evaluation.metrics.checks import check_lengths, numbers
from kvw.evaluation.metrics.optional import optional

SHARE = 0.2
"""Min-K 20 %, the share that Shi et al. recommend and FIUBench uses."""
SMALLEST_DEVIATION = 1e-3
"""Where the model is certain, the deviation is taken as this, so that Min-K++ does not divide by 0."""


def min_k(log_probabilities: Sequence[float], share: float = SHARE) -> float:
    """Min-K% (Shi et al., arXiv 2310.16789): mean log probability of the least probable tokens of a text.

    Args:
        log_probabilities: Log probabilities of the text's tokens, in nats.
        share: Which share of the tokens counts, rounded down, but one token at least.

    Returns:
        At most 0; larger means more likely seen in training.

    Raises:
        UserError: There are no tokens, one is not a number, or the share is not above 0 and at most 1.
    """
    return _mean_of_smallest(numbers(log_probabilities, "log probabilities"), share)


def min_k_plus_plus(
    log_probabilities: Sequence[float],
    means: Sequence[float],
    deviations: Sequence[float],
    share: float = SHARE,
) -> float:
    """Min-K%++ (Zhang et al., arXiv 2404.02936): Min-K% of standardised log probabilities.

    (log p(y_t) - mu_t) / sigma_t, with mu_t and sigma_t the mean and the standard deviation of log p(z) for z
    drawn from the model's own distribution at position t. The least reliable metric of the
    OPEN-MMUNLEARNING study (0.493, where BLEU has 0.950).

    Args:
        log_probabilities: Log probabilities of the text's tokens, in nats.
        means: mu_t at each position, in nats, from ``TokenScores.means``.
        deviations: sigma_t at each position, in nats, from ``TokenScores.deviations``; at least 0.001 is used.
        share: Which share of the tokens counts, rounded down, but one token at least.

    Returns:
        Any number; larger means more likely seen in training.

    Raises:
        UserError: The lengths differ, there are no tokens, one is not a number, or the share is not above 0
            and at most 1.
    """
    check_lengths("token scores", log_probabilities, means, deviations)
    standardised = [
        (value - mean) / max(deviation, SMALLEST_DEVIATION)
        for value, mean, deviation in zip(log_probabilities, means, deviations, strict=True)
    ]
    return _mean_of_smallest(numbers(standardised, "standardised log probabilities"), share)


def membership_auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Area under the ROC curve: the chance that a member scores above a text that is none, ties counted half.

    Args:
        members: Scores of texts that were trained on, larger for more likely members.
        others: Scores of comparable texts that were not. Texts that differ in topic or date are told apart by
            that and not by membership.

    Returns:
        0 to 1; 0.5 if the scores tell nothing.

    Raises:
        UserError: One of the sets is empty or holds NaN, or scipy is not installed.
    """
    first, second = numbers(members, "scores of members"), numbers(others, "scores of other texts")
    # Ranks alone: infinite scores are fine, and nothing is tested that could warn about ties.
    ranks = optional("scipy.stats").rankdata([*first, *second])
    pairs_won = float(ranks[: len(first)].sum()) - len(first) * (len(first) + 1) / 2
    return pairs_won / (len(first) * len(second))


def _mean_of_smallest(values: list[float], share: float) -> float:
    if not 0 < share <= 1:
        raise UserError(
            "The share of tokens lies above 0 and is at most 1.", found=f"share = {share}", do="give 0.2 for instance"
        )
    return fmean(sorted(values)[: max(1, int(len(values) * share))])
