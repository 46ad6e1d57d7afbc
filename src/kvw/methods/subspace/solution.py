"""From what value matrices saw to the edit, one group of them after the other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from kvw.edits.edit import EditMetadata
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.measuring.moments import Moment, Tokens
from kvw.measuring.retain_rows import RetainRows
from kvw.methods.bounds import DistortionBounds
from kvw.methods.subspace.bounds import separation_warnings
from kvw.methods.subspace.directions import Measurements, find_directions
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.parts import Part
from kvw.models.quantised import quantisation
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current

UNLABELLED = Labels()
Found = TypeVar("Found")
Measured = Callable[[ValueMatrix], Measurements | None]
"""What a value matrix saw, None for an expert that saw too little; to be asked once for each."""


class Solution:
    """What was found at the value matrices so far, the same in all processes.

    Args:
        settings: Settings of the method.
        forget_labels, retain_labels: As of :func:`subspace`.
        on_matrix: Gets what was found for each value matrix, in the first process.
        instead: Coefficients whose output takes the place of what is taken out; a value matrix without any loses it.

    Attributes:
        directions: Directions of every value matrix that was solved.
        of_each: The same of each subject by itself.
    """

    def __init__(
        self,
        settings: SubspaceSettings,
        forget_labels: Labels = UNLABELLED,
        retain_labels: Labels = UNLABELLED,
        on_matrix: Callable[[DistortionBounds], None] | None = None,
        instead: Mapping[MatrixKey, Tensor] | None = None,
    ) -> None:
        self._instead = instead or {}
        self._settings, self._forget_labels, self._retain_labels = settings, forget_labels, retain_labels
        self._on_matrix = on_matrix
        self._left_alone: list[str] = []
        self._bounds: list[DistortionBounds] = []
        self.directions: dict[MatrixKey, Directions] = {}
        self.of_each: dict[Hashable, dict[MatrixKey, Directions]] = {}

    def solve(self, group: Sequence[ValueMatrix], measured: Measured) -> None:
        """Find the directions of some value matrices."""

        def one(matrix: ValueMatrix) -> tuple[Directions, DistortionBounds, dict[Hashable, Directions]] | None:
            seen = measured(matrix)
            if seen is None:
                return None
            instead = self._instead.get(matrix.key)
            found, entry, own = find_directions(seen, self._settings, self._forget_labels, self._retain_labels, instead)
            cpu = torch.device("cpu")
            return found.to(cpu), entry, {subject: value.to(cpu) for subject, value in own.items()}

        for matrix, found in sorted(scattered(group, one), key=lambda entry: entry[0].key.order):
            if found is None:
                self._left_alone.append(str(matrix.key))
                continue
            self.directions[matrix.key], entry, own = found
            for subject, value in own.items():
                self.of_each.setdefault(subject, {})[matrix.key] = value
            self._bounds.append(entry)
            if self._on_matrix and current().is_first:
                self._on_matrix(entry)

    def edit(self, matrices: Sequence[ValueMatrix], on_warning: Callable[[str], None]) -> LowRankEdit:
        """The edit of all value matrices in range; told is what their bounds say together."""
        counted = "forget examples" if self._forget_labels.subjects is None else "forget subjects"
        for warning in separation_warnings(self._bounds, counted):
            on_warning(warning)
        values = asdict(self._settings) | range_of(matrices)
        metadata = EditMetadata(method="subspace", settings=values, left_alone=tuple(self._left_alone))
        strength = self._settings.strength
        edit = LowRankEdit(self.directions, strength, metadata)
        edit.of_each = {subject: LowRankEdit(own, strength, metadata) for subject, own in self.of_each.items()}
        return edit


def scattered(group: Sequence[ValueMatrix], solve: Callable[[ValueMatrix], Found]) -> list[tuple[ValueMatrix, Found]]:
    """Solve each value matrix in the process that has its sums; all processes get every result, tensors on the CPU."""
    processes = current()
    results = [result for _, result in processes.scatter(group, solve)]
    return list(zip(group, processes.broadcast(lambda: results), strict=True))


def handed_out(
    moments: dict[MatrixKey, Moment] | dict[MatrixKey, RetainRows],
    tokens: dict[MatrixKey, Tokens],
    null: dict[MatrixKey, Tokens],
    settings: SubspaceSettings,
) -> Measured:
    """What was measured, given away one value matrix at a time, so that its moment can be freed."""

    def measured(matrix: ValueMatrix) -> Measurements | None:
        moment, forget, others = moments.pop(matrix.key, None), tokens.pop(matrix.key, None), null.pop(matrix.key, None)
        return measurements(matrix, moment, forget, others, settings.min_tokens)

    return measured


def measurements(
    matrix: ValueMatrix, moment: Moment | RetainRows | None, forget: Tokens | None, null: Tokens | None, min_tokens: int
) -> Measurements | None:
    """What was measured at a value matrix; None for an expert that saw fewer than ``min_tokens`` in either set."""
    if moment is None or forget is None:
        return None
    if matrix.key.expert is not None and min(moment.count, len(forget.rows)) < min_tokens:
        return None
    weight = None if quantisation(matrix.module) else matrix.read()
    columns = weight.T if weight is not None and matrix.vectors_first else weight
    return Measurements(matrix.key, moment, forget, null, columns)


def range_of(matrices: Sequence[ValueMatrix]) -> dict[str, Any]:
    """Which layers and which matrices were weakened, as settings would say it."""
    kinds: dict[bool, Part] = {
        matrix.key.attention: "attention" if matrix.key.attention else "ffn" for matrix in matrices
    }
    part: Part = "both" if len(kinds) > 1 else next(iter(kinds.values()))
    return {"layers": (matrices[0].key.layer, matrices[-1].key.layer), "matrices": part}
