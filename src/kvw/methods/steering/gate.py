"""How well the gate a . h tells the forget set from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kvw.methods.steering.null_space import solve_filter

FAIR_AUC = 0.9
"""Below this a gate is not called aware of its input."""
HELD_OUT = 5
"""When a gate is judged, each n-th example is held out; this is n."""
BasisOf = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GateReport:
    """The gate of one layer, judged on examples that it was not fitted to.

    Every fifth example of both sets is held out, the filter is fitted to the others, and the gates of the held-out
    examples are compared. The filter that the edit carries is fitted to all of them. Examples about the same subject
    lie on both sides of this split, so people that neither set knows can be told apart less well: see
    :func:`kvw.methods.steering.diagnosis.diagnose`.

    Args:
        layer: 0-based.
        dimensions: Dimensions of the null space.
        energy: Share of the retain set's energy that it holds.
        forget: Mean gate of held-out forget examples; 1 is what the filter is fitted to.
        retain: Mean gate of held-out retain examples; 0 would be blind to them.
        auc: How often a forget example has a larger gate than a retain example; None if nothing could be held out.
        shift: Length of the direction.
    """

    layer: int
    dimensions: int
    energy: float
    forget: float
    retain: float
    auc: float | None
    shift: float

    @property
    def warnings(self) -> list[str]:
        """What the user should look at."""
        if self.auc is None or self.auc >= FAIR_AUC:
            return []
        return [unfair(f"layer {self.layer}", "the retain set", self.auc)]


def unfair(where: str, other: str, auc: float) -> str:
    """The warning for a gate that cannot tell two sets apart."""
    return (
        f"The gate of {where} does not tell the forget set from {other} (AUC {auc:.2f}, below {FAIR_AUC}): "
        "others are steered as well. Take more retain examples, another null space, or deeper layers."
    )


def auc(ones: Tensor, others: Tensor) -> float:
    """Probability that a number of the first kind is larger than one of the second, ties counted half: the
    rank statistic of Mann and Whitney.

    Args:
        ones, others: (n,) and (m,), any floating dtype, at least one number each.
    """
    ascending = others.double().sort().values
    wanted = ones.double().contiguous()
    # How many of the others lie below each number, and how many up to it: their mean counts ties half.
    below, up_to = (torch.searchsorted(ascending, wanted, right=right) for right in (False, True))
    return float((below + up_to).double().mean() / (2 * len(others)))


def held_out_gates(forget: Tensor, retain: Tensor, basis_of: BasisOf, ridge: float) -> tuple[Tensor, Tensor] | None:
    """Gates of every fifth example of both sets under a filter fitted to the others.

    Args:
        forget, retain: States (samples, hidden).
        basis_of: Finds the null space of retain states.
        ridge: gamma.

    Returns:
        Gates (n,) and (m,), float64; None if a set has fewer than five examples or the null space is empty.
    """
    if min(len(forget), len(retain)) < HELD_OUT:
        return None
    kept = [torch.arange(len(states)) % HELD_OUT != HELD_OUT - 1 for states in (forget, retain)]
    basis = basis_of(retain[kept[1]])
    if not basis.shape[1]:
        return None
    fitted = solve_filter(forget[kept[0]], basis, ridge)
    return forget[~kept[0]].double() @ fitted, retain[~kept[1]].double() @ fitted
