"""Takes second moments and single coefficients while a model runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from kvw.measuring.moments import Moment, Tokens
from kvw.measuring.plans import Plan
from kvw.measuring.recorder import Watcher
from kvw.measuring.sources import SOURCES
from kvw.models.coefficients import Seen
from kvw.models.value_matrix import MatrixKey, ValueMatrix

STRIPS, NARROWEST = 8, 128
"""How many strips of rows second moments are added up in, and the fewest rows of a strip."""


class MomentRecorder(Watcher):
    """Takes second moments and single coefficients while a model runs.

    Args:
        matrices: What to measure.
        folds: How many folds there are.
        dtype: Dtype of the sums; None takes no moments.
        stops: Whether the forward ends with the last value matrix.

    Attributes:
        moments: So far, for each value matrix that saw a position with a weight.
        kept: So far, for each value matrix, part by part.
        needed: Bytes of the second moments of all value matrices; None if none are taken.
        lacks_room: Whether memory ran out when a second moment was to be begun.
    """

    def __init__(
        self, matrices: Sequence[ValueMatrix], folds: int, dtype: torch.dtype | None, *, stops: bool = True
    ) -> None:
        super().__init__(matrices, stops=stops)
        self._folds = folds
        self._dtype = dtype
        self._plan: Plan | None = None
        self._taken: set[Hashable] = set()
        self._before: frozenset[Hashable] = frozenset()
        squares = sum(matrix.width**2 for matrix in matrices)
        self.needed = None if dtype is None else folds * squares * dtype.itemsize
        self.lacks_room = False
        self.moments: dict[MatrixKey, Moment] = {}
        self.kept: dict[MatrixKey, list[Tokens]] = {}

    def joined(self) -> dict[MatrixKey, Tokens]:
        """What was kept of each value matrix, as one."""
        return {key: Tokens.joined(parts) for key, parts in self.kept.items()}

    def expect(self, plan: Plan, taken: set[Hashable] | None = None) -> None:
        """Announce the next forward.

        Args:
            plan: What to take from it.
            taken: What is already counted, since a forward of the same examples failed half-way; what is counted now
                is added to it. None: nothing.
        """
        self._plan = plan
        self._taken = set() if taken is None else taken
        self._before = frozenset(self._taken)
        self.announce(plan.tokens)

    def take(self, seen: Seen, tokens: int) -> None:
        """Add to moments and tokens what the plan says."""
        plan = self._plan
        if plan is None:
            raise RuntimeError("a forward without a plan")
        coefficients = seen.coefficients.reshape(-1, seen.matrices[0].width)
        owners = torch.arange(tokens) if seen.tokens is None else seen.tokens.cpu()
        experts = torch.zeros_like(owners) if seen.experts is None else seen.experts.cpu()
        for index, matrix in enumerate(seen.matrices):
            own = slice(None) if seen.experts is None else (experts == index).nonzero()[:, 0]
            if len(owners[own]):
                self._take(matrix.key, plan, coefficients, torch.arange(len(owners))[own], owners[own])

    def _take(self, key: MatrixKey, plan: Plan, coefficients: Tensor, places: Tensor, tokens: Tensor) -> None:
        """Take in what one value matrix saw: the rows at ``places``, which belong to ``tokens``."""
        if self._dtype is not None:
            self._accumulate(key, self._dtype, plan, coefficients, places, tokens)
        if len(plan.kept) and (key, "tokens") not in self._before:
            # From tokens of the whole batch to places among the kept ones; -1 for the others.
            number = torch.full((plan.tokens,), -1)
            number[plan.kept] = torch.arange(len(plan.kept))
            places_kept = number[tokens]
            chosen, places_kept = places[places_kept >= 0], places_kept[places_kept >= 0]
            if not len(places_kept):
                return
            weights = plan.weights[:, :, plan.kept[places_kept]].sum((0, 1))
            values = coefficients.index_select(0, chosen.to(coefficients.device)).cpu()
            self.kept.setdefault(key, []).append(
                Tokens(values, plan.rows[places_kept], plan.offsets[places_kept], weights)
            )
            self._taken.add((key, "tokens"))

    def _accumulate(
        self, key: MatrixKey, dtype: torch.dtype, plan: Plan, coefficients: Tensor, places: Tensor, tokens: Tensor
    ) -> None:
        """Add the outer products of the rows at ``places``, which belong to ``tokens``."""
        weights = plan.weights[:, :, tokens]  # (folds, sources, rows)
        total = weights.sum(1)  # (folds, rows)
        if not bool((total > 0).any()):
            return
        width, device = coefficients.shape[1], coefficients.device
        moment = self.moments.get(key) or self.begun(width, device)
        for fold in range(self._folds):
            wanted = (total[fold] > 0).nonzero()[:, 0]
            if not len(wanted) or (key, fold) in self._before:
                continue
            # sum of w m m^T = (sqrt(w) M)^T (sqrt(w) M): one product of (rows, width) with itself
            roots = total[fold, wanted].sqrt().to(device, dtype)
            chosen = coefficients.index_select(0, places[wanted].to(device)).to(dtype) * roots[:, None]
            _add_upper(moment.sums[fold], chosen)
            moment.masses[fold] += weights[fold].sum(1)
            moment = replace(moment, count=moment.count + len(wanted))
            self.moments[key] = moment
            self._taken.add((key, fold))

    def begun(self, width: int, device: torch.device) -> Moment:
        """A second moment that has seen nothing."""
        self.lacks_room = True
        sums = torch.zeros(self._folds, width, width, dtype=self._dtype, device=device)
        self.lacks_room = False
        return Moment(sums, torch.zeros(self._folds, len(SOURCES), dtype=torch.float64), 0)


def _add_upper(total: Tensor, rows: Tensor) -> None:
    """Add rows^T rows on and above the diagonal, strip by strip: little more than half of the work."""
    width = len(total)
    strips = max(1, min(STRIPS, width // NARROWEST))
    edges = [width * strip // strips for strip in range(strips + 1)]
    for begin, end in pairwise(edges):
        total[begin:end, begin:].addmm_(rows[:, begin:end].T, rows[:, begin:])
