"""From which score on a store catches something, and what can be said of how often that is a mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvw.errors import UserError

SURE = 0.95
"""How sure a bound on a share is."""
MARGIN = 1 / 3
"""How far a floor that nothing may reach lies on the way to what must be caught. Nearer to what must be answered,
because new phrasings of what must be caught score lower than known ones."""


def largest_share(caught: int, asked: int) -> float:
    """The largest share that ``caught`` of ``asked`` do not rule out, :data:`SURE` sure (Clopper and Pearson, 1934).

    It is the p at which P(X <= caught) = 1 - SURE for X ~ Binomial(asked, p). With none caught it is near 3 / asked.
    """
    low, high = caught / asked, 1.0
    while caught < asked and high - low > 1e-9:
        middle = (low + high) / 2
        some = math.fsum(_chance(count, asked, middle) for count in range(caught + 1))
        low, high = (middle, high) if some > 1 - SURE else (low, middle)
    return high


def enough(rate: float) -> int | None:
    """Of how many questions none must be caught to say that at most a share ``rate`` is; None if none is enough."""
    return math.ceil(math.log(1 - SURE) / math.log1p(-rate)) if rate else None


def floor_of(must_not: Sequence[float], must: Sequence[float], rate: float) -> float:
    """The lowest floor for which it can be said that at most a share ``rate`` of what must not be caught reaches it.

    That is an order statistic: just above the score that one more would be too many to say so
    (:func:`largest_share`). If too few are there for any to be caught, it lies above all of them by :data:`MARGIN` of
    the way to the lowest higher score of what must be caught.

    Args:
        must_not: Scores of what must not be caught.
        must: Scores of what must be caught.
        rate: The share.

    Raises:
        UserError: There is no score of what must not be caught.
    """
    if not must_not:
        raise UserError("A floor needs questions that must not be caught.", do="give --retain some")
    ranked = sorted(must_not, reverse=True)
    allowed, chance = 0, _chance(0, len(ranked), rate)
    while allowed + 1 < len(ranked) and (chance := chance + _chance(allowed + 1, len(ranked), rate)) <= 1 - SURE:
        allowed += 1
    lowest = math.nextafter(ranked[allowed], math.inf)
    return lowest if allowed else raised(lowest, must)


def raised(floor: float, must: Sequence[float]) -> float:
    """A floor moved by :data:`MARGIN` of the way to the lowest score of what must be caught that reaches it."""
    return floor + MARGIN * (min((score for score in must if score >= floor), default=floor) - floor)


def _chance(count: int, asked: int, share: float) -> float:
    """P(X = count) for X ~ Binomial(asked, share)."""
    if not 0 < share < 1:
        return float(count == asked * share)
    ways = math.lgamma(asked + 1) - math.lgamma(count + 1) - math.lgamma(asked - count + 1)
    return math.exp(ways + count * math.log(share) + (asked - count) * math.log1p(-share))
