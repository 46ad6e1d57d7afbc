"""The largest share of a change that keeps enough."""

from __future__ import annotations

import math
from collections.abc import Callable

from kvw.errors import UserError

GRID = 16
"""Steps of the first pass over the shares from 0 to 1."""
HALVINGS = 3
"""Of the last step: the share is found to 1 / 128."""


class Curve:
    """What is kept at each share; every share is measured once.

    Args:
        measure: The score of a share from 0 to 1.

    Attributes:
        points: Share and score of all that was measured.
    """

    def __init__(self, measure: Callable[[float], float]) -> None:
        self._measure = measure
        self.points: dict[float, float] = {}

    def at(self, share: float) -> float:
        """The score of one share.

        Raises:
            UserError: It is NaN.
        """
        if share not in self.points:
            score = self._measure(share)
            if math.isnan(score):
                raise UserError(
                    f"What is kept at a share of {share:g} is not a number.",
                    do="leave out splits whose scores are empty, or give --at-most more items",
                )
            self.points[share] = score
        return self.points[share]

    def largest(self, tau: float) -> float:
        """The largest share of the grid that keeps ``tau``, and what bisection towards the next one adds.

        A score need not fall steadily. So the whole grid is measured, and its last crossing counts.

        Args:
            tau: The share of the original's score that must be kept.

        Returns:
            A share that was measured and keeps ``tau``; 0, the original, if no other does.
        """
        kept = [step for step in range(GRID + 1) if self.at(step / GRID) >= tau]
        best = max(kept, default=0)
        if best == GRID:
            return 1.0
        low, high = best / GRID, (best + 1) / GRID
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(middle) >= tau else (low, middle)
        return low
