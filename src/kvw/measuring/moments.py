"""Second moments of coefficients, and the coefficients of single tokens: what subspace weakening is made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvw.measuring.sources import SOURCES


@dataclass(frozen=True)
class Tokens:
    """Coefficients of one value matrix at answer-predicting positions.

    Args:
        coefficients: (n, width), in the model's dtype, on the CPU.
        rows: The example of each: (n,), int64, counted over all batches in the order in which they came.
        offsets: Which answer token each predicts, from 0: (n,), int64.
        weights: What each weighs in the second moment of its set: (n,), float64.
    """

    coefficients: Tensor
    rows: Tensor
    offsets: Tensor
    weights: Tensor

    def chosen(self, wanted: Tensor) -> Tokens:
        """Only those tokens: a mask or indices."""
        return Tokens(self.coefficients[wanted], self.rows[wanted], self.offsets[wanted], self.weights[wanted])

    @classmethod
    def joined(cls, parts: Iterable[Tokens]) -> Tokens:
        """The tokens of different examples, in the order of the examples."""
        ordered = sorted(parts, key=lambda part: int(part.rows[0]))
        names = ("coefficients", "rows", "offsets", "weights")
        return cls(*(torch.cat([getattr(part, name) for part in ordered]) for name in names))


@dataclass(frozen=True)
class Moment:
    """Weighted sums of m m^T over the positions that one value matrix saw.

    Sums over disjoint data add up, so it does not matter how data is split over batches, passes or processes.

    Args:
        sums: Sum of w m m^T for each fold: (folds, width, width), on the device of the layer. What lies below the
            diagonal means nothing: the other half says it.
        masses: Sum of w for each fold and source: (folds, sources), float64, on the CPU.
        count: Positions with a weight; one that several examples of a batch share counts once.
    """

    sums: Tensor
    masses: Tensor
    count: int

    def __add__(self, other: Moment) -> Moment:
        return Moment(self.sums + other.sums.to(self.sums), self.masses + other.masses, self.count + other.count)

    def __sub__(self, other: Moment) -> Moment:
        return Moment(self.sums - other.sums.to(self.sums), self.masses - other.masses, self.count - other.count)

    @property
    def mean(self) -> Tensor:
        """C = E[m m^T]: (width, width), exactly symmetric."""
        upper = (self.sums.sum(0) / float(self.masses.sum())).triu_()
        return upper + upper.triu(1).T

    @property
    def folds(self) -> list[Tensor]:
        """C of each fold that has seen anything: (width, width) each."""
        return [replace(self, sums=self.sums[i : i + 1], masses=self.masses[i : i + 1]).mean for i in self._seen]

    @property
    def shares(self) -> dict[str, float]:
        """What share of C each source has."""
        by_source = self.masses.sum(0)
        return dict(zip(SOURCES, (by_source / by_source.sum()).tolist(), strict=True))

    def shares_of(self, tokens: Tokens) -> Tensor:
        """What share of C each token of this set has: (tokens,), float64."""
        return tokens.weights / self.masses.sum()

    @property
    def _seen(self) -> list[int]:
        return [fold for fold, mass in enumerate(self.masses.sum(1).tolist()) if mass > 0]
