"""How strong an edit may be before too much is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from kvw.edits.algebra import scale
from kvw.edits.edit import Edit
from kvw.errors import UserError


@dataclass(frozen=True)
class Calibration:
    """The strongest edit found that keeps a score.

    Args:
        edit: The edit at that strength.
        strength: From 0 to 1.
        score: What it scored, at least the floor.
    """

    edit: Edit
    strength: float
    score: float


def calibrate(
    edit: Edit,
    score: Callable[[Edit], float],
    floor: float,
    *,
    path: Callable[[Edit, float], Edit] = scale,
    tolerance: float = 1 / 64,
) -> Calibration:
    """Find the largest strength at which a score stays at or above a floor, by bisection.

    Brings edits to a common level of retention before they are compared by what they forget, as UWC does (Wang et al.,
    arXiv 2406.09179); ``path=mix`` goes the way of its model mixing.

    What is returned was scored and reached the floor; something at most ``tolerance`` stronger was scored and did
    not, unless the full strength did. With a score that does not fall steadily there may be more than one such place.

    Args:
        edit: The edit at full strength.
        score: Called with an edit; attaches it and measures, for example, exact match on retain questions.
        floor: The score to keep, in the unit of ``score``.
        path: Gives the edit at a strength from 0 (the original model) to 1: :func:`kvw.edits.scale` or
            :func:`kvw.edits.mix`.
        tolerance: How closely to find the strength; each halving costs one more score.

    Raises:
        UserError: Even the original model does not reach the floor, a score is NaN, or the kind of edit has no
            strength.
    """
    if not 0 < tolerance <= 1:
        raise UserError("tolerance must be above 0 and at most 1.", found=str(tolerance), do="give 0.01 for instance")

    def tried(strength: float) -> Calibration:
        weaker = path(edit, strength)
        value = score(weaker)
        if math.isnan(value):
            raise UserError(f"The score at strength {strength:g} is not a number.", do="check the scoring function")
        return Calibration(weaker, strength, value)

    full = tried(1.0)
    if full.score >= floor:
        return full
    best = tried(0.0)
    if best.score < floor:
        raise UserError(
            "The original model does not reach the floor, so no strength does.",
            found=f"{best.score:g}, below {floor:g}",
            do="set a floor that the model reaches without any edit",
        )
    too_strong = 1.0
    while too_strong - best.strength > tolerance:
        middle = tried((best.strength + too_strong) / 2)
        if middle.score >= floor:
            best = middle
        else:
            too_strong = middle.strength
    return best
