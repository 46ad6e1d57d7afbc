"""The generalised eigenproblem C_f V = S V Lambda, V^T S V = I, solved where it is small.

With C_f = F F^T for a few forget vectors F (width, n), S = L L^T and X = L^-1 F, the eigenvectors Z of the n x n matrix
X^T X give everything: V = L^-T X Z Lambda^-1/2 and U = S V = F Z Lambda^-1/2. Nothing of the size width x width is
decomposed except by one Cholesky factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvw.errors import UserError
from kvw.methods.subspace.shrinkage import floored_diagonal, shrink

LARGEST_SHRINKAGE = 0.5
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Modes:
    """Directions ordered by how much more forget than retain energy they carry.

    Args:
        eigenvalues: lambda, descending: (rank,), float64.
        patterns: U = S V: (width, rank).
        filters: V, with V^T U = I: (width, rank).
    """

    eigenvalues: Tensor
    patterns: Tensor
    filters: Tensor

    @property
    def rank(self) -> int:
        """Number of directions."""
        return len(self.eigenvalues)

    def chosen(self, wanted: Tensor) -> Modes:
        """Only those directions: a mask or indices."""
        return Modes(self.eigenvalues[wanted], self.patterns[:, wanted], self.filters[:, wanted])


@dataclass(frozen=True)
class Metric:
    """The retain moment S in the form that solving needs.

    Args:
        moment: S = (1 - shrinkage) C + shrinkage diag(C): (width, width).
        factor: Its Cholesky factor L, lower triangular, in the same dtype.
        shrinkage: The rho in it.
    """

    moment: Tensor
    factor: Tensor
    shrinkage: float

    def whiten(self, vectors: Tensor) -> Tensor:
        """L^-1 F: (width, n)."""
        whitened: Tensor = torch.linalg.solve_triangular(self.factor, vectors.to(self.factor), upper=False)
        return whitened

    def gram(self, vectors: Tensor) -> Tensor:
        """F^T S^-1 F: (n, n), float64."""
        whitened = self.whiten(vectors).double()
        return whitened.T @ whitened

    def output_energy(self, weight: Tensor) -> float:
        """E_S |W m|^2 = tr(W S W^T), with knowledge vectors as the columns of W: (hidden, width)."""
        weight = weight.to(self.moment)
        return float(((weight @ self.moment) * weight).sum())


@dataclass(frozen=True)
class ReducedMoment:
    """S = (1 - rho) R R^T + E with a diagonal E, never written out.

    Args:
        vectors: R: (width, m), float64.
        share: 1 - rho.
        fixed: E: (width,), float64.
    """

    vectors: Tensor
    share: float
    fixed: Tensor

    def __matmul__(self, others: Tensor) -> Tensor:
        """S times a vector (width,) or vectors (width, n)."""
        fixed = self.fixed if others.ndim == 1 else self.fixed[:, None]
        product: Tensor = self.share * (self.vectors @ (self.vectors.T @ others)) + fixed * others
        return product

    def diagonal(self) -> Tensor:
        """(width,), float64."""
        return self.share * self.vectors.square().sum(1) + self.fixed


@dataclass(frozen=True)
class ReducedMetric:
    """The retain moment S from retain vectors, inverted by Woodbury's identity in their space. In float64.

    Args:
        moment: S = (1 - shrinkage) C + shrinkage diag(C) with C = R R^T.
        factor: Cholesky factor of R^T E^-1 R + I / (1 - shrinkage): (m, m); None with a shrinkage of 1.
        shrinkage: The rho in it.
    """

    moment: ReducedMoment
    factor: Tensor | None
    shrinkage: float

    def inverse(self, vectors: Tensor) -> Tensor:
        """S^-1 F: (width, n)."""
        retain, fixed = self.moment.vectors, self.moment.fixed[:, None]
        scaled = vectors.to(fixed) / fixed
        if self.factor is None:
            return scaled
        return scaled - (retain / fixed) @ torch.cholesky_solve(retain.T @ scaled, self.factor)

    def gram(self, vectors: Tensor) -> Tensor:
        """F^T S^-1 F: (n, n), float64."""
        product = vectors.to(self.moment.fixed).T @ self.inverse(vectors)
        return (product + product.T) / 2

    def output_energy(self, weight: Tensor) -> float:
        """E_S |W m|^2 = tr(W S W^T), with knowledge vectors as the columns of W: (hidden, width)."""
        weight = weight.to(self.moment.fixed)
        sampled = (weight @ self.moment.vectors).square().sum()
        return float(self.moment.share * sampled + (weight.square() * self.moment.fixed).sum())


def reduced_metric(retain: Tensor, shrinkage: float) -> ReducedMetric:
    """Shrink the moment of a few retain vectors without forming it: no width x width matrix ever exists.

    With C = R R^T and D its diagonal, (1 - rho) R R^T + rho D is inverted by Woodbury's identity in the space of the
    retain vectors, of which there should be fewer than knowledge vectors. In float64.

    Args:
        retain: R, scaled so that R R^T is the retain moment: (width, m), in any floating dtype.
        shrinkage: rho, above 0: the diagonal is what makes S invertible.

    Raises:
        ValueError: The shrinkage is 0.
    """
    if shrinkage <= 0:
        raise ValueError("fewer retain vectors than knowledge vectors need a shrinkage above 0")
    retain = retain.double()
    energies = retain.square().sum(1)
    # Like shrink(): what dead neurons lack is added before mixing.
    diagonal = floored_diagonal(energies)
    fixed = (1 - shrinkage) * (diagonal - energies) + shrinkage * diagonal
    moment = ReducedMoment(retain, 1 - shrinkage, fixed)
    if shrinkage == 1:
        return ReducedMetric(moment, None, 1.0)
    # (a R R^T + E)^-1 = E^-1 - E^-1 R (R^T E^-1 R + I / a)^-1 R^T E^-1, with a = 1 - rho: only (m, m) is factorised.
    inner = retain.T @ (retain / fixed[:, None])  # (m, m)
    inner.diagonal().add_(1 / (1 - shrinkage))
    return ReducedMetric(moment, torch.linalg.cholesky(inner), shrinkage)


def metric(moment: Tensor, shrinkage: float) -> Metric:
    """Shrink a retain moment and factorise it.

    If it is not positive definite in its precision, the shrinkage is doubled (from at least 0.01) until it is.

    Args:
        moment: C: (width, width), float32 or float64, symmetric.
        shrinkage: rho, between 0 and 1.

    Raises:
        UserError: It takes a shrinkage above :data:`LARGEST_SHRINKAGE` and more than was asked for.
    """
    used = shrinkage
    while True:
        shrunk = shrink(moment, used)
        factor, failed = torch.linalg.cholesky_ex(shrunk)
        if not int(failed):
            return Metric(shrunk, factor, used)
        used = max(0.01, 2 * used)
        if used > max(LARGEST_SHRINKAGE, shrinkage):
            raise UserError(
                "The second moment of the retain set is too singular to be inverted.",
                found=f"no Cholesky factor with shrinkage up to {used / 2:g}",
                do="use more retain examples, or a larger shrinkage",
            )


def solve(found: Metric | ReducedMetric, vectors: Tensor) -> Modes:
    """All directions with lambda above rounding.

    Args:
        found: From :func:`metric` or :func:`reduced_metric`.
        vectors: F with C_f = F F^T: (width, n), in any floating dtype.

    Returns:
        The modes in the dtype of the metric, or in float64 where float32 was not good enough (U = S V to 0.001).
    """
    if isinstance(found, ReducedMetric):
        return modes_of(found.gram(vectors), vectors.to(found.moment.fixed), found.inverse(vectors))
    modes = _from_whitened(found, vectors)
    # U = S V holds exactly. In float32 the triangular solves lose it where S is badly conditioned.
    error = (found.moment @ modes.filters - modes.patterns).norm()
    if found.factor.dtype != torch.float64 and error > TOLERANCE * modes.patterns.norm():
        return _from_whitened(metric(found.moment.double(), 0.0), vectors)
    return modes


def _from_whitened(found: Metric, vectors: Tensor) -> Modes:
    vectors = vectors.to(found.factor)
    whitened = found.whiten(vectors)  # L^-1 F: (width, n)
    # S^-1 F = L^-T (L^-1 F)
    back = torch.linalg.solve_triangular(found.factor.T, whitened, upper=True)
    return modes_of(whitened.double().T @ whitened.double(), vectors, back)


def modes_of(gram: Tensor, vectors: Tensor, solved: Tensor) -> Modes:
    """Modes from F^T S^-1 F: (n, n), float64, F and S^-1 F: (width, n).

    Any symmetric matrix that is not negative may stand for S^-1, a projector for instance.
    """
    # F^T S^-1 F = R Lambda R^T has the nonzero lambda of the pencil (F F^T, S), and n is far below the width.
    eigenvalues, rotation = torch.linalg.eigh((gram + gram.T) / 2)  # (n,) ascending, (n, n)
    eigenvalues, rotation = eigenvalues.flip(0), rotation.flip(1)
    if not len(eigenvalues):
        return Modes(eigenvalues, vectors, solved)
    rounding = 10 * len(eigenvalues) ** 0.5 * torch.finfo(vectors.dtype).eps
    # Views of one fact are nearly the same vector; what is left of their differences is rounding.
    wanted = eigenvalues > rounding * eigenvalues[0].clamp(min=torch.finfo(torch.float64).tiny)
    eigenvalues = eigenvalues[wanted]
    # U = F R Lambda^-1/2 and V = S^-1 F R Lambda^-1/2, so that V^T U = I and V^T S V = I.
    coordinates = (rotation[:, wanted] / eigenvalues.sqrt()).to(vectors.dtype)
    return Modes(eigenvalues, vectors @ coordinates, solved @ coordinates)
