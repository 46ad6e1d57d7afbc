"""The edits that one solve offers, from the weakest to the strongest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch

from kvw.edits.edit import Edit
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.methods.subspace.gates import removed_below

Kind = Literal["directions", "strength", "share"]
"""What a method's edits are varied by: how many directions they weaken, their strength, or their share in a mixture of
edited and original weights."""
GROWTH = 1.25
"""From one number of directions to the next."""
STRENGTHS = tuple(2 ** (step / 2) for step in range(-16, 17))
"""1/256 to 256 times the edit that was found, each root 2 times the one before."""
SHARES = tuple(step / 24 for step in range(1, 25))


class Path(ABC):
    """Edits of one solve, by dose.

    Attributes:
        doses: Ascending.
        unit: What the dose is, for tables.
        where: In which part of the model, for tables; empty for all that was solved.
    """

    unit: str
    doses: tuple[float, ...]
    where: str = ""

    @abstractmethod
    def edit(self, dose: float) -> Edit:
        """The edit of one dose."""


class DirectionsPath(Path):
    """The n strongest directions, for growing n.

    Args:
        found: All directions that were found, with log-gates that order them.
        smallest_gate: Gates below it become 0.
        layers: Of these layers alone, first and last, both included; None for all.
    """

    unit = "directions"

    def __init__(self, found: LowRankEdit, smallest_gate: float, layers: tuple[int, int] | None = None) -> None:
        if layers is not None:
            self.where = f"layers {layers[0]}:{layers[1]}"
            inside = {key: value for key, value in found.directions.items() if layers[0] <= key.layer <= layers[1]}
            found = LowRankEdit(inside, found.strength, found.metadata)
        self._found, self._smallest = found, smallest_gate
        gates = [value.log_gates for value in found.directions.values()]
        self._sorted = torch.cat(gates).sort().values if gates else torch.empty(0)
        count = int((self._sorted < 0).sum())
        doses, dose = [], 1.0
        while dose < count:
            doses.append(float(round(dose)))
            dose = max(dose * GROWTH, dose + 1)
        self.doses = (*dict.fromkeys(doses), float(count)) if count else ()

    def edit(self, dose: float) -> LowRankEdit:
        """The edit of the ``dose`` strongest directions; of equally strong ones all."""
        weakest = self._sorted[int(dose) - 1]
        chosen = {}
        for key, value in self._found.directions.items():
            places = (value.log_gates <= weakest).nonzero()[:, 0]
            gates = removed_below(value.log_gates[places], self._smallest)
            chosen[key] = Directions(value.patterns[:, places], value.filters[:, places], gates)
        return LowRankEdit(chosen, self._found.strength, self._found.metadata)


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

    def __init__(self, found: Edit) -> None:
        self._found = found

    def edit(self, dose: float) -> Edit:
        """The mixture with ``dose`` of the edited weights."""
        return self._found.mixed(dose, self._found.metadata)
