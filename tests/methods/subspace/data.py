"""Synthetic coefficients with neurons of very different scale, and the operator of an edit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvw.measuring.moments import Tokens
from kvw.methods.subspace.baselines.formulas import Found, Given
from kvw.methods.subspace.solver import Modes

WIDTH, HIDDEN = 40, 12


@dataclass(frozen=True)
class Layer:
    """A value matrix, retain coefficients (width, many) and forget coefficients (width, few), in float64."""

    weight: Tensor
    retain: Tensor
    forget: Tensor

    @property
    def moment(self) -> Tensor:
        """C_r."""
        return self.retain @ self.retain.T / self.retain.shape[1]

    @property
    def vectors(self) -> Tensor:
        """F."""
        return self.forget / self.forget.shape[1] ** 0.5


def layer(seed: int = 0, width: int = WIDTH, retain: int = 400, forget: int = 6) -> Layer:
    """Correlated neurons; the forget set has directions of its own."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scales = (0.7 * normal(width)).exp()[:, None]
    basis = normal(width, width) * torch.arange(1, width + 1).double() ** -0.5
    own = normal(width, 3)
    return Layer(
        weight=normal(HIDDEN, width),
        retain=scales * (basis @ normal(width, retain)),
        forget=scales * (basis @ normal(width, forget) + own @ normal(3, forget)),
    )


def operator(modes: Modes, log_gates: Tensor) -> Tensor:
    """T = I + U (g - 1) V^T in float64."""
    change = torch.expm1(log_gates.double())
    identity = torch.eye(len(modes.patterns), dtype=torch.float64)
    return identity + (modes.patterns.double() * change) @ modes.filters.double().T


def tokens(values: Tensor, rows: list[int] | None = None, offsets: list[int] | None = None) -> Tokens:
    """Columns of ``values`` (width, n) as recorded tokens, one example each unless told otherwise."""
    count = values.shape[1]
    rows = list(range(count)) if rows is None else rows
    sizes = torch.tensor([rows.count(row) for row in rows], dtype=torch.float64)
    return Tokens(
        values.T.contiguous(),
        torch.tensor(rows),
        torch.tensor([0] * count if offsets is None else offsets),
        1 / sizes,
    )


def given(data: Layer) -> Given:
    """What baselines of subspace weakening are given of a layer."""
    return Given(data.weight, data.moment, data.vectors)


def applied(found: Found) -> Tensor:
    """The operator T = I + U (g - 1) V^T of a baseline."""
    identity = torch.eye(len(found.patterns), dtype=torch.float64)
    return identity + (found.patterns * torch.expm1(found.log_gates)) @ found.filters.T
