"""How much a neuron matters to a set, in MANU's three forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvw.methods.gradient.manu import Formula

ACTIVE = 0.1
"""A neuron counts as active where the absolute value of its coefficient is above this."""
EPSILON = 1e-5


@dataclass
class Moments:
    """Sums over tokens of one FFN's coefficients: (width,), float64 each.

    Args:
        count: Tokens.
        sums: Of abs(m), of whether abs(m) is above 0.1, of m, and of m^2.
    """

    count: int = 0
    sums: list[Tensor] = field(default_factory=list)

    def add(self, coefficients: Tensor) -> None:
        """Take in coefficients (tokens, width)."""
        values = coefficients.double()
        new = [values.abs(), (values.abs() > ACTIVE).double(), values, values.square()]
        totals = [part.sum(0) for part in new]
        self.sums = [old + total for old, total in zip(self.sums, totals, strict=True)] if self.sums else totals
        self.count += len(values)

    @property
    def means(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean abs(m), share of abs(m) above 0.1, variance of m, mean of m^2."""
        absolute, frequency, mean, square = (total / self.count for total in self.sums)
        return absolute, frequency, (square - mean.square()).clamp_min(0), square


@dataclass(frozen=True)
class Seen:
    """What a set shows of one FFN: with its pictures, and without them. One of the two may be missing."""

    pictured: Moments | None = None
    bare: Moments | None = None

    @property
    def known(self) -> bool:
        """Whether any token was seen."""
        return any(one is not None and one.count for one in (self.pictured, self.bare))


def scores(formula: Formula, forget: Seen, retain: Seen, weights: Sequence[float]) -> Tensor:
    """S of every neuron of an FFN; those with the highest are pruned: (width,), float64, on the CPU.

    ``pooled``: I_f / (I_r + 1e-5) with I = sum of w_k times mean abs, share active, variance, root mean square.
    ``code``: sum of w_k (I_k,f / (I_k,r + 1e-5) - 1) with the standard deviation in place of the variance.
    ``paper``: I_f / (I_r + 1e-5), where each measure of a set sets its pictures against the same questions without.

    Args:
        formula: Which.
        forget, retain: What each set shows.
        weights: Of the four measures.
    """
    if formula == "code":
        ratios = [
            weight * (one / (other + EPSILON) - 1)
            for weight, one, other in zip(weights, _plain(forget), _plain(retain), strict=True)
        ]
        return torch.stack(ratios).sum(0).cpu()
    measures = _contrasts if formula == "paper" else _pooled
    mine, others = (
        torch.stack([weight * part for weight, part in zip(weights, measures(seen), strict=True)]).sum(0)
        for seen in (forget, retain)
    )
    return (mine / (others + EPSILON)).cpu()


def _only(seen: Seen) -> Moments:
    """What was seen, of FFNs that see a set one way."""
    found = seen.pictured or seen.bare
    assert found is not None
    return found


def _pooled(seen: Seen) -> list[Tensor]:
    absolute, frequency, variance, square = _only(seen).means
    return [absolute, frequency, variance, square.sqrt()]


def _plain(seen: Seen) -> list[Tensor]:
    absolute, frequency, variance, square = _only(seen).means
    return [absolute, frequency, variance.sqrt(), square.sqrt()]


def _contrasts(seen: Seen) -> list[Tensor]:
    """The paper's four measures; a tower sees nothing where there is no picture, so its second side is 0."""
    assert seen.pictured is not None
    absolute, _, variance, _ = seen.pictured.means
    active, energy = seen.pictured.sums[1], seen.pictured.sums[3]
    zero = torch.zeros_like(absolute)
    if seen.bare is None:
        absolute_t = variance_t = active_t = energy_t = zero
    else:
        absolute_t, _, variance_t, _ = seen.bare.means
        active_t, energy_t = seen.bare.sums[1], seen.bare.sums[3]
    return [
        _contrast(absolute, absolute_t),
        _contrast(active, active_t),
        (variance + variance_t).sqrt(),
        _contrast(energy, energy_t).sqrt(),
    ]


def _contrast(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs() / (one + other + EPSILON)
