"""What ``kvw sweep layers`` finds, as a record."""

from __future__ import annotations

from typing import Any

from kvw.strict import Strict


class LayerPoint(Strict):
    """One edit of one window."""

    dose: float
    answered: int
    """Forget questions that are still answered, teacher-forced."""
    left: float
    """Share that is left of the probability of their answers."""
    kept: dict[str, float]
    """Share that is left of what must stay, by source."""

    @property
    def least_kept(self) -> float:
        """Of the source that keeps least."""
        return min(self.kept.values())


class LayerCurve(Strict):
    """The edits of one window, from the weakest to the strongest."""

    first: int
    last: int
    """Both included, 0-based."""
    points: list[LayerPoint]

    @property
    def title(self) -> str:
        """How it is written in --layers."""
        return f"{self.first}:{self.last}"

    def strongest(self, keep: float) -> LayerPoint | None:
        """The point that leaves least, of those that keep this share of every source; None if none does."""
        return min((one for one in self.points if one.least_kept >= keep), key=lambda one: one.left, default=None)

    def cheapest(self) -> LayerPoint | None:
        """The point that keeps most, of those that leave no question answered; None if none does."""
        done = [one for one in self.points if not one.answered]
        return max(done, key=lambda one: one.least_kept, default=None)


class LayerSweep(Strict):
    """Forgetting against keeping for several ranges of layers of one solve."""

    model: str
    method: str
    settings: dict[str, Any]
    unit: str
    """What the dose is."""
    keep: float
    questions: int
    """Forget questions that are asked."""
    answered: int
    """Of these, what the original model answers."""
    must_stay: dict[str, int]
    """Questions, or sentences, of each source of what must stay."""
    curves: list[LayerCurve]
