"""How much to shrink, by what happens to subjects that the retain moment has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvw.methods.subspace.shrinkage import ledoit_wolf
from kvw.methods.subspace.solver import Modes, metric, solve

CANDIDATES = (0.03, 0.1, 0.3)
WANTED_RESIDUAL = 0.3
STRONGEST = 2.0**40


def cross_validated(
    folds: Sequence[Tensor],
    weight: Tensor,
    fitted: Tensor,
    held_out: Tensor,
    *,
    candidates: Sequence[float] = CANDIDATES,
    residual: float = WANTED_RESIDUAL,
) -> float:
    """The intensity that harms subjects outside S least at equal forgetting.

    For every fold: S from the other folds, modes from one half of the forget views, the Wiener gate set so strong that
    ``residual`` of the output energy of the other half is left (or what the weakest candidate can reach), and the
    output distortion E |(W' - W) m|^2 on the fold. The candidate with the smallest total wins, but never less than
    :func:`~kvw.methods.subspace.shrinkage.ledoit_wolf`.

    Args:
        folds: Second moments of disjoint groups of subjects, at least two: each (width, width).
        weight: W with knowledge vectors as columns: (hidden, width).
        fitted: Forget vectors to find the modes with: (width, n).
        held_out: Forget vectors of other views: (width, m).
        candidates: Intensities to try.
        residual: Share of the held-out forget energy that should be left.
    """
    weight = weight.to(folds[0])
    fitted, held_out = fitted.to(folds[0]), held_out.to(folds[0])
    totals = dict.fromkeys(candidates, 0.0)
    for left_out in range(len(folds)):
        others = [fold for index, fold in enumerate(folds) if index != left_out]
        mean = torch.stack(others).mean(0)
        trials = {}
        for candidate in candidates:
            trials[candidate] = _Trial(weight, solve(metric(mean, candidate), fitted), held_out)
        # Candidates are compared at equal forgetting: at what the weakest of them can reach, plus 1 %.
        target = max(residual, *(1.01 * trial.residual(STRONGEST) for trial in trials.values()))
        for candidate, trial in trials.items():
            totals[candidate] += trial.distortion(trial.strength(target), folds[left_out])
    best = min(candidates, key=totals.__getitem__)
    return max(best, ledoit_wolf(folds))


class _Trial:
    """An edit with a Wiener gate of any strength."""

    def __init__(self, weight: Tensor, modes: Modes, held_out: Tensor) -> None:
        self._eigenvalues = modes.eigenvalues
        # All that depends on the strength is g: (rank,). Everything else is multiplied out once.
        self._outputs = weight @ modes.patterns.to(weight)  # W U: (hidden, rank)
        self._filters = modes.filters.to(weight)
        self._read = self._filters.T @ held_out  # (rank, m)
        self._before = weight @ held_out  # (hidden, m)

    def _change(self, mu: float) -> Tensor:
        return torch.expm1(-torch.log1p(mu * self._eigenvalues)).to(self._outputs)

    def residual(self, mu: float) -> float:
        """Output energy of the held-out views that is left."""
        after = self._before + (self._outputs * self._change(mu)) @ self._read
        return float(after.square().sum() / self._before.square().sum())

    def strength(self, target: float) -> float:
        """mu at which this share is left, by bisection of its logarithm: the share falls steadily in mu."""
        low, high = -40.0, 40.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.residual(2.0**middle) > target else (low, middle)
        return float(2.0**high)

    def distortion(self, mu: float, moment: Tensor) -> float:
        """E |(W' - W) m|^2 under a moment."""
        left = self._outputs * self._change(mu)
        return float(((left.T @ left) * (self._filters.T @ moment @ self._filters)).sum())
