"""A few rows that stand for a second moment: sampled by weight, each with a weight that makes up for those left out.

Priority sampling (Duffield, Lund, Thorup, "Priority sampling for estimation of arbitrary subset sums", 2007): with a
uniform u for each position, keep the positions with the largest w / u, and let each weigh max(w, q) with q the largest
w / u that was not kept. Sums over any part of the data are then right on average. Positions weigh what they do in the
full moment, so subjects that count the same there have about as many rows each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvw.measuring.moment_recorder import MomentRecorder
from kvw.measuring.moments import Tokens
from kvw.measuring.plans import Plan
from kvw.measuring.sources import SOURCES
from kvw.models.value_matrix import MatrixKey, ValueMatrix

NEVER_KEPT = -1


@dataclass(frozen=True)
class RetainRows:
    """A sample of what one value matrix saw.

    Args:
        coefficients: (n, width), in the model's dtype, on the CPU.
        weights: What each row stands for: (n,), float64.
        rows: The example of each, for those whose coefficients are kept as tokens, else -1: (n,), int64.
        offsets: Which answer token each of those predicts: (n,), int64.
        masses: Sum of the weights of all positions, sampled or not, for each source: (1, sources), float64.
        count: Positions with a weight, sampled or not.
    """

    coefficients: Tensor
    weights: Tensor
    rows: Tensor
    offsets: Tensor
    masses: Tensor
    count: int

    @property
    def vectors(self) -> Tensor:
        """R with R R^T = E[m m^T], on average over samples: (width, n), float32 or better."""
        exact = torch.promote_types(self.coefficients.dtype, torch.float32)
        roots = (self.weights / self.masses.sum()).sqrt()
        return (self.coefficients.to(exact) * roots.to(exact)[:, None]).T

    @property
    def shares(self) -> dict[str, float]:
        """What share of the moment each source has."""
        by_source = self.masses.sum(0)
        return dict(zip(SOURCES, (by_source / by_source.sum()).tolist(), strict=True))

    def shares_of(self, tokens: Tokens) -> Tensor:
        """What share R R^T gives to tokens of this set; 0 to those that were not sampled: (tokens,), float64."""
        kept = (self.rows != NEVER_KEPT).nonzero()[:, 0].tolist()
        places = {(int(self.rows[place]), int(self.offsets[place])): place for place in kept}
        places_of = [places.get(own) for own in zip(tokens.rows.tolist(), tokens.offsets.tolist(), strict=True)]
        weights = [0.0 if place is None else float(self.weights[place]) for place in places_of]
        return torch.tensor(weights, dtype=torch.float64) / self.masses.sum()


class RowRecorder(MomentRecorder):
    """Samples rows where its parent adds up their outer products; keeps single coefficients as its parent does.

    Args:
        matrices: What to measure.
        limit: Most rows of each value matrix.
        stops: Whether the forward ends with the last value matrix.

    Attributes:
        samples: So far, for each value matrix that saw a position with a weight.
    """

    def __init__(self, matrices: Sequence[ValueMatrix], limit: int, *, stops: bool = True) -> None:
        super().__init__(matrices, 1, torch.float32, stops=stops)
        self._limit = limit
        self._draws = torch.empty(0)
        self.samples: dict[MatrixKey, _Sample] = {}

    def expect_rows(self, plan: Plan, first_row: int, rows: int) -> None:
        """Announce the next forward, whose first example has this number."""
        self.expect(plan)
        self._draws = _draws(plan, first_row, rows)

    def finished(self) -> dict[MatrixKey, RetainRows]:
        """The samples of all value matrices. They are freed here."""
        return {key: self.samples.pop(key).finished() for key in list(self.samples)}

    def _accumulate(
        self, key: MatrixKey, dtype: torch.dtype, plan: Plan, coefficients: Tensor, places: Tensor, tokens: Tensor
    ) -> None:
        weights = plan.weights[0, :, tokens]  # (sources, rows)
        total = weights.sum(0)
        if not bool((total > 0).any()):
            return
        sample = self.samples.setdefault(key, _Sample(self._limit))
        sample.masses += weights.sum(1)
        sample.count += int((total > 0).sum())
        # Priority sampling: weight over a uniform number. The largest priorities are the sample.
        priorities = total / self._draws[tokens]
        wanted = (priorities > sample.bound).nonzero()[:, 0]
        # Which of the kept tokens each sampled row is, so that it can be taken out of the moment again.
        kept = torch.full((plan.tokens,), NEVER_KEPT)
        kept[plan.kept] = torch.arange(len(plan.kept))
        number = kept[tokens[wanted]]
        known = number != NEVER_KEPT
        nothing = torch.full_like(number, NEVER_KEPT)
        sample.add(
            _Rows(
                coefficients.index_select(0, places[wanted].to(coefficients.device)).cpu(),
                priorities[wanted],
                total[wanted],
                torch.where(known, plan.rows[number], nothing) if len(plan.rows) else nothing,
                torch.where(known, plan.offsets[number], nothing) if len(plan.rows) else nothing,
            )
        )


@dataclass(frozen=True)
class _Rows:
    coefficients: Tensor
    priorities: Tensor
    weights: Tensor
    rows: Tensor
    offsets: Tensor

    def chosen(self, wanted: Tensor) -> _Rows:
        return _Rows(*(getattr(self, name)[wanted] for name in self.__dataclass_fields__))

    def __add__(self, other: _Rows) -> _Rows:
        return _Rows(*(torch.cat([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__))


@dataclass
class _Sample:
    """The rows of the largest priorities so far, and the next one, which says what they weigh."""

    limit: int
    found: _Rows | None = None
    masses: Tensor = field(default_factory=lambda: torch.zeros(len(SOURCES), dtype=torch.float64))
    count: int = 0
    bound: float = 0.0

    def add(self, more: _Rows) -> None:
        self.found = more if self.found is None else self.found + more
        if len(self.found.weights) > self.limit:
            largest = self.found.priorities.topk(self.limit + 1)
            self.found = self.found.chosen(largest.indices)
            self.bound = float(largest.values[-1])

    def finished(self) -> RetainRows:
        if self.found is None:
            raise RuntimeError("a sample without rows")
        found = self.found
        weights = found.weights
        if len(weights) > self.limit:
            found = found.chosen(torch.arange(self.limit))
            # A row of weight w is sampled with probability min(1, w / bound). With max(w, bound) sums are unbiased.
            weights = found.weights.clamp(min=self.bound)
        return RetainRows(found.coefficients, weights, found.rows, found.offsets, self.masses[None], self.count)


def _draws(plan: Plan, first_row: int, rows: int) -> Tensor:
    """A number above 0 and up to 1 for every position with a weight, from the number of its example and its place
    among them: neither padding nor the split into batches changes it. 1 elsewhere: (tokens,), float64."""
    weighted = plan.weights.sum((0, 1)).view(rows, -1) > 0
    draws = torch.ones(weighted.shape, dtype=torch.float64)
    for row in range(rows):
        generator = torch.Generator().manual_seed(first_row + row)
        count = int(weighted[row].sum())
        draws[row, weighted[row]] = 1 - torch.rand(count, generator=generator, dtype=torch.float64)
    return draws.flatten()
