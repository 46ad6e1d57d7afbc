"""The edits that one solve offers, from the weakest to the strongest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvw.edits.edit import Edit
from kvw.edits.low_rank import Directions, LowRankEdit, removed_below
from kvw.models.value_matrix import MatrixKey
from kvw.selection.thinning import thinned

GROWTH = 1.25
"""From one number of directions to the next."""
STRENGTHS = tuple(2 ** (step / 2) for step in range(-16, 17))
"""1/256 to 256 times the edit that was found, each root 2 times the one before."""
LEAST_NEW = 0.01
"""Share of its length squared that a direction must have beside stronger ones of other subjects."""
SHARES = tuple(step / 24 for step in range(1, 25))
WEAKER = tuple(step / 12 for step in range(1, 12))
"""Parts of directions that forget everything, where the whole costs others too much."""


class Path(ABC):
    """Edits of one solve, by dose.

    Attributes:
        doses: Ascending.
        unit: What the dose is, for tables.
        where: In which part of the model, for tables; empty for all that was solved.
        base: An edit that is in force under each of them; None for none.
    """

    unit: str
    doses: tuple[float, ...]
    where: str = ""
    base: Edit | None = None

    @abstractmethod
    def edit(self, dose: float) -> Edit:
        """The edit of one dose."""

    def _on_base(self, edit: Edit) -> Edit:
        return edit if self.base is None else type(edit).joined([self.base, edit], edit.metadata)


class DirectionsPath(Path):
    """The n strongest directions, for growing n. Equally strong ones come together, so n counts all of them.

    Args:
        found: All directions that were found, with log-gates that order them.
        smallest_gate: Gates below it become 0.
        layers: Only of these layers, first and last, both included; None for all.
        base: See :class:`Path`.

    Attributes:
        is_thin: Whether the edits hold no more directions than they need, as far as was tried.
        is_of_each: Whether the directions were found for each subject by itself.
    """

    unit = "directions"

    def __init__(
        self,
        found: LowRankEdit,
        smallest_gate: float,
        layers: tuple[int, int] | None = None,
        base: Edit | None = None,
    ) -> None:
        if layers is not None:
            self.where = f"layers {layers[0]}:{layers[1]}"
            inside = {key: value for key, value in found.directions.items() if layers[0] <= key.layer <= layers[1]}
            found = LowRankEdit(inside, found.strength, found.metadata)
        self.is_thin = self.is_of_each = False
        self._found, self._smallest, self.base = found, smallest_gate, base
        gates = [value.log_gates for value in found.directions.values()]
        self._sorted = torch.cat(gates).sort().values if gates else torch.empty(0)
        count = int((self._sorted < 0).sum())
        doses, dose = [], 1.0
        while dose < count:
            doses.append(float(round(dose)))
            dose = max(dose * GROWTH, dose + 1)
        ends = torch.searchsorted(self._sorted, self._sorted[[int(dose) - 1 for dose in doses]], right=True)
        self.doses = tuple(dict.fromkeys([*map(float, ends.tolist()), float(count)])) if count else ()

    def edit(self, dose: float) -> Edit:
        """The edit of the ``dose`` strongest directions; of equally strong ones all."""
        return self._on_base(self._of(self._directions(dose)))

    def needed(self, dose: float, enough: Callable[[Edit], bool], tries: int) -> DirectionsPath:
        """A path of those among the ``dose`` strongest directions without which they are not enough.

        Args:
            dose: How many directions to begin with.
            enough: Whether an edit is.
            tries: How often to ask at most.
        """
        all_of_them = self._directions(dose)
        kept = thinned(all_of_them, lambda some: enough(self._on_base(self._of(some))), tries)
        path = DirectionsPath(self._of(kept, rounded=False), self._smallest, base=self.base)
        path.where, path.is_thin = self.where, True
        if len(kept) < len(all_of_them):
            path.where = ", ".join(filter(None, (self.where, f"needed of {len(all_of_them)}")))
        return path

    def weakened(self, share: float) -> DirectionsPath:
        """A path of the same directions with gates g that are 1 - share (1 - g), so also those that were 0 are above.

        Args:
            share: Between 0 and 1.
        """
        whole = self._of(self._directions(self.doses[-1]))
        parts = {
            key: Directions(value.patterns, value.filters, torch.log1p(share * torch.expm1(value.log_gates)))
            for key, value in whole.directions.items()
        }
        path = DirectionsPath(LowRankEdit(parts, whole.strength, whole.metadata), 0.0, base=self.base)
        path.where = ", ".join(filter(None, (self.where, f"at {share:.0%}")))
        path.is_thin, path.is_of_each = self.is_thin, self.is_of_each
        return path

    def _directions(self, dose: float) -> list[tuple[MatrixKey, int]]:
        """Value matrix and number of the ``dose`` strongest directions, the weakest first."""
        weakest = self._sorted[int(dose) - 1]
        chosen = [
            (float(gate), key, place)
            for key, value in self._found.directions.items()
            for place, gate in enumerate(value.log_gates)
            if gate <= weakest
        ]
        return [(key, place) for _, key, place in sorted(chosen, key=lambda one: -one[0])]

    def _of(self, chosen: Sequence[tuple[MatrixKey, int]], *, rounded: bool = True) -> LowRankEdit:
        """The edit of some directions, with small gates rounded to 0; value matrices without any are no part of it."""
        parts, places_of = {}, dict[MatrixKey, list[int]]()
        for key, place in chosen:
            places_of.setdefault(key, []).append(place)
        for key, rows in places_of.items():
            value, places = self._found.directions[key], torch.tensor(sorted(rows), dtype=torch.int64)
            gates = removed_below(value.log_gates[places], self._smallest if rounded else 0.0)
            parts[key] = Directions(value.patterns[:, places], value.filters[:, places], gates)
        return LowRankEdit(parts, self._found.strength, self._found.metadata)


def united(chosen: Sequence[tuple[DirectionsPath, float]]) -> DirectionsPath:
    """A path of the directions of several edits, which overlap.

    Filters are changed so that each reads nothing of the others: V (U^T V)^-1 for the filters V and patterns U of a
    value matrix. Of directions that are nearly the same one is taken.

    Args:
        chosen: Paths, each with a dose, whose edits have V^T U = I each and are solved with one retain moment.
    """
    parts: dict[MatrixKey, list[Directions]] = {}
    for path, dose in chosen:
        for key, value in path._of(path._directions(dose), rounded=False).directions.items():
            parts.setdefault(key, []).append(value)
    (first, _), *_ = chosen
    edit = LowRankEdit({key: _beside(own) for key, own in parts.items()}, first._found.strength, first._found.metadata)
    path = DirectionsPath(edit, first._smallest, base=first.base)
    path.where, path.is_thin, path.is_of_each = "each subject by itself", True, True
    return path


def _beside(parts: Sequence[Directions]) -> Directions:
    """Directions of several edits at one value matrix."""
    log_gates, order = torch.cat([one.log_gates for one in parts]).sort(stable=True)
    patterns = torch.cat([one.patterns for one in parts], 1)[:, order]
    filters = torch.cat([one.filters for one in parts], 1)[:, order]
    overlaps = filters.double().T @ patterns.double()  # V^T U = V^T S V: (rank, rank), with ones on the diagonal
    kept = _independent(overlaps)
    dual = filters[:, kept].double() @ torch.linalg.inv(overlaps[kept][:, kept]).T
    return Directions(patterns[:, kept], dual, log_gates[kept])


def _independent(overlaps: Tensor) -> Tensor:
    """Places of the directions that have enough beside those before them, by Cholesky's algorithm."""
    kept: list[int] = []
    factor = torch.zeros_like(overlaps)
    for place in range(len(overlaps)):
        many = len(kept)
        row = torch.linalg.solve_triangular(factor[:many, :many], overlaps[kept, place, None], upper=False)[:, 0]
        new = overlaps[place, place] - row.square().sum()
        if new > LEAST_NEW:
            factor[many, :many], factor[many, many] = row, new.sqrt()
            kept.append(place)
    return torch.tensor(kept, dtype=torch.int64)


class StrengthPath(Path):
    """The edit at parts and multiples of its strength."""

    unit = "strength"
    doses = STRENGTHS

    def __init__(self, found: Edit) -> None:
        self._found = found

    def edit(self, dose: float) -> Edit:
        """The edit at ``dose`` times its strength."""
        return self._found.scaled(dose, self._found.metadata)


class SharePath(Path):
    """Edited and original weights mixed, for edits that take directions out altogether: no strength weakens these."""

    unit = "share"
    doses = SHARES

    def __init__(self, found: Edit, base: Edit | None = None) -> None:
        self._found, self.base = found, base

    def edit(self, dose: float) -> Edit:
        """The mixture with ``dose`` of the edited weights."""
        return self._on_base(self._found.mixed(dose, self._found.metadata))
