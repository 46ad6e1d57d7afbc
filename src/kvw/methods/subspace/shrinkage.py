"""Shrinking a second moment towards its diagonal, and how much.

S = (1 - rho) C + rho diag(C). The target is the diagonal and not the identity because neurons differ in scale by orders
of magnitude: a multiple of the identity that is nothing to a loud neuron swamps a quiet one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvw.errors import UserError

FLOOR = 1e-3
"""Energy that a neuron which never fires is treated as having, as a share of the median neuron's."""


def floored_diagonal(energies: Tensor) -> Tensor:
    """Mean squares of neurons, those of dead ones raised to :data:`FLOOR` times the median of the others.

    Without it a neuron that the retain set never uses would make S singular and get a ratio of infinity.

    Args:
        energies: diag(C): (width,).

    Raises:
        UserError: No neuron is ever used.
    """
    used = energies[energies > 0]
    if not len(used):
        raise UserError(
            "The retain set does not use a single neuron of a value matrix.",
            found="all coefficients are 0",
            do="use more retain examples, or leave the layer out",
        )
    return energies.clamp(min=float(FLOOR * used.median()))


def shrink(moment: Tensor, shrinkage: float) -> Tensor:
    """S = (1 - rho) C + rho diag(C), the diagonal floored first.

    Args:
        moment: C: (width, width), symmetric.
        shrinkage: rho, between 0 and 1.

    Returns:
        S, a new tensor in the dtype of ``moment``.
    """
    diagonal = floored_diagonal(moment.diagonal())
    shrunk = moment * (1 - shrinkage)
    shrunk.diagonal().copy_(diagonal)
    return shrunk


def ledoit_wolf(groups: Sequence[Tensor]) -> float:
    """Ledoit and Wolf's intensity for a diagonal target, with groups of subjects as the independent observations.

    rho = sum_{i != j} Var(c_ij) / sum_{i != j} c_ij^2 in correlation scale, the variance estimated by how the groups
    scatter around their mean: sum over J groups of (M_j - C)^2 / (J (J - 1)). It minimises the error of C, which loud
    directions dominate, and so picks less than harmless small directions need; use it as a lower bound.

    Args:
        groups: Second moments of groups of about equal size, at least two: each (width, width).
    """
    mean = torch.stack(list(groups)).mean(0)
    # In correlation scale all neurons count the same: D^-1/2 M D^-1/2 with D the diagonal of the mean.
    scale = floored_diagonal(mean.diagonal()).rsqrt()  # (width,)
    scaled = [group * scale * scale[:, None] for group in groups]
    center = mean * scale * scale[:, None]
    scatter = sum(_off_diagonal(group - center) for group in scaled) / (len(groups) * (len(groups) - 1))
    return min(1.0, float(scatter) / max(_off_diagonal(center), torch.finfo(torch.float64).tiny))


def _off_diagonal(matrix: Tensor) -> float:
    return float(matrix.double().square().sum() - matrix.diagonal().double().square().sum())
