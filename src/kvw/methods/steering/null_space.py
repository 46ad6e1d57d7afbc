"""The linear gate: 1 on the forget set, 0 on what the retain set spans.

Of all maps W P that are 0 outside the null space with projector P, the paper takes the ridge solution that sends each
forget state h to the direction d. All its targets are equal, so W P = d a^T with one filter a: instead of a matrix of
hidden x hidden numbers two vectors are kept. With P = Q Q^T and Z = Q^T H_f: a = Q (Z Z^T + gamma I)^-1 Z 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvw.errors import UserError


def null_space(
    retain: Tensor, *, ratio: float = 0.3, energy: float | None = None, exactly: bool = False
) -> tuple[Tensor, Tensor]:
    """The directions in which the retain set has the least energy.

    Args:
        retain: H_r, its states: (samples, hidden), any floating dtype; they are not centred.
        ratio: Take int(ratio * hidden) directions, and all in which the set has none.
        energy: Instead of ``ratio``: take as many as hold together at most this share of the energy.
        exactly: Of ``ratio``: no more than that, even if which ones is a matter of rounding.

    Returns:
        Q (hidden, k) with orthonormal columns, k perhaps 0, and the eigenvalues of H_r^T H_r, ascending: (hidden,);
        both float64.
    """
    states = retain.double()
    return emptiest(states.T @ states, ratio=ratio, energy=energy, exactly=exactly)


def emptiest(
    moment: Tensor, *, ratio: float = 0.3, energy: float | None = None, exactly: bool = False
) -> tuple[Tensor, Tensor]:
    """As :func:`null_space`, from H_r^T H_r or a multiple of it: (hidden, hidden), float64."""
    eigenvalues, vectors = torch.linalg.eigh(moment)  # ascending: the emptiest directions come first
    eigenvalues = eigenvalues.clamp(min=0)  # rounding makes some a little negative
    # Fewer samples than dimensions leave directions without any energy; all of them are in the null space.
    empty = int((eigenvalues <= eigenvalues[-1] * len(eigenvalues) * torch.finfo(torch.float64).eps).sum())
    if energy is not None:
        total = eigenvalues.sum()
        wanted = int((eigenvalues.cumsum(0) <= energy * total).sum())
    else:
        wanted = int(ratio * len(eigenvalues))
    if not exactly:
        wanted = max(wanted, empty)
    return vectors[:, :wanted], eigenvalues


def principal_space(states: Tensor, *, energy: float, rank: int) -> Tensor:
    """The fewest directions that together hold a share of the energy, the strongest first.

    Args:
        states: (samples, hidden), any floating dtype; they are not centred.
        energy: The share, between 0 and 1.
        rank: At most so many directions.

    Returns:
        (hidden, k) with orthonormal columns, float64; k is 0 if there is no energy.
    """
    states = states.double()
    if len(states) < states.shape[1]:
        _, sizes, vectors = torch.linalg.svd(states, full_matrices=False)
        energies, vectors = sizes.square(), vectors.T
    else:
        eigenvalues, vectors = torch.linalg.eigh(states.T @ states)
        energies, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
    kept = int((energies > energies[0] * len(energies) * torch.finfo(torch.float64).eps).sum())
    wanted = int((energies.cumsum(0) < energy * energies.sum()).sum()) + 1
    strongest: Tensor = vectors[:, : min(wanted, kept, rank)]
    return strongest


def solve_filter(forget: Tensor, basis: Tensor, ridge: float) -> Tensor:
    """The filter a of f(h) = (a . h) d, which minimises sum_f (a . h - 1)^2 + gamma |a|^2 inside the null space.

    Args:
        forget: H_f: (samples, hidden).
        basis: Q: (hidden, k), orthonormal.
        ridge: gamma; at 0 the smallest of the best solutions.

    Returns:
        a: (hidden,), float64.
    """
    inside = forget.double() @ basis.double()  # H_f Q: (samples, k)
    ones = inside.new_ones(len(inside))
    samples, dimensions = inside.shape
    if ridge == 0:
        solution = torch.linalg.pinv(inside) @ ones
    elif dimensions <= samples:
        gram = inside.T @ inside + ridge * torch.eye(dimensions, dtype=inside.dtype)
        solution = torch.linalg.solve(gram, inside.T @ ones)
    else:  # the same by the push-through identity, in the smaller space of the samples
        gram = inside @ inside.T + ridge * torch.eye(samples, dtype=inside.dtype)
        solution = inside.T @ torch.linalg.solve(gram, ones)
    solved: Tensor = basis.double() @ solution
    return solved


def check_null_space(layer: int, basis: Tensor, *, ratio: float, energy: float | None) -> None:
    """Refuse a null space without directions.

    Raises:
        UserError: Says what to change.
    """
    if not basis.shape[1]:
        found = f"ratio {ratio:g}" if energy is None else f"energy {energy:g}"
        raise UserError(
            f"The retain set leaves no direction of layer {layer} free, so there is nothing to steer in.",
            found=f"{found} of {basis.shape[0]} dimensions",
            do="take a larger ratio or energy",
        )
