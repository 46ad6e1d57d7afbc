"""An edit in weights of few bits: what to quantise so that the edit is not lost in the rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import LowRankEdit
from kvw.edits.surviving import surviving_share

ROUNDS = 4
"""How often what rounding took away is added again; on SmolLM2 in four bits later rounds change nothing."""


@dataclass(frozen=True)
class Requantised:
    """The numbers to quantise in place of a weight, and what is left of the edit once that is done."""

    weight: Tensor
    """(hidden, width), float32; not rounded yet."""
    share: float
    """<what was added, what should have been> / ||what should have been||^2: 1 if nothing is lost. Of directions, both
    are looked at only along these."""


def requantised(
    edit: GateEdit | LowRankEdit, matrix: Any, weight: Tensor, rounded: Callable[[Tensor], Tensor]
) -> Requantised:
    """Change a weight that was read from few bits, so that the edit is still there in as few.

    The weight lies on a grid. A direction changes every number a little, often by less than half a step, so that most
    would be rounded back to where they were. What is lost that way along the directions of the edit is added again
    before the next rounding: X + (W' - round(X)) U V^T. Single vectors (gates) are changed by a share of themselves,
    and are rounded as they are.

    Args:
        edit: What is written.
        matrix: Which value matrix; only its key and orientation are used.
        weight: W: (hidden, width), float32, as read.
        rounded: What is left of such a weight when it is stored and read again.

    Returns:
        Of all rounds the one that loses least.
    """
    wanted = edit.changed(matrix, weight)
    if not isinstance(edit, LowRankEdit):
        return Requantised(wanted, _share(weight, rounded(wanted), wanted))
    directions = edit.directions[matrix.key]
    patterns, filters = directions.patterns, directions.filters
    tried, best, least = wanted, wanted, float("inf")
    for _ in range(ROUNDS + 1):
        lost = (wanted - rounded(tried)) @ patterns
        if (size := float(lost.norm())) < least:
            best, least = tried, size
        tried = tried + lost @ filters.T
    return Requantised(best, _share(weight @ patterns, rounded(best) @ patterns, wanted @ patterns))


def _share(before: Tensor, after: Tensor, wanted: Tensor) -> float:
    return surviving_share(before, after, wanted.double() - before.double())
