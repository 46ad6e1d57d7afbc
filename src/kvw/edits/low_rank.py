"""Low-rank edits: W' = W T with T = I + U (g - 1) V^T, which weakens directions of coefficients, not single ones."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import ENTRIES_AT_A_TIME, Attachment, EditMetadata, check_sign, signed
from kvw.edits.hooks import Hooks
from kvw.edits.summary import LayerSummary, summarise_low_rank
from kvw.edits.values import Values
from kvw.edits.weight_edit import WeightEdit
from kvw.errors import UserError
from kvw.models.coefficients import Seen, intercept
from kvw.models.sharding import sharded_weight
from kvw.models.value_matrix import MatrixKey, ValueMatrix

REMOVED = -10_000.0
"""The log-gate of a direction that is taken out: finite, so that files and arithmetic stay plain, and so low that the
gate is 0 at every strength above 0.002. It stays a log-gate, so T(0) = I holds here too."""

MOST_OF_EACH = 16
"""The most subjects with edits of their own. Of more, a search asks few questions each, so it cannot tell what each of
them needs."""
BIORTHOGONAL = 0.05
"""How far V^T U may be from I for rounding; solves in float32 are good to 0.001."""


def removed_below(log_gates: Tensor, smallest: float) -> Tensor:
    """Gates below ``smallest`` become 0: what is left of a strong direction could still be read and scaled up."""
    if not smallest:
        return log_gates
    return log_gates.masked_fill(log_gates < math.log(smallest), REMOVED)


@dataclass(frozen=True)
class Directions:
    """What a low-rank edit does to one value matrix.

    ``filters`` read how much of a direction is in the coefficients, ``patterns`` say what to take away for it (the
    words for the two sides of a generalised eigenproblem). With V^T U = I the edits of one basis form a semigroup:
    T(a) T(b) = T(a + b).

    Args:
        patterns: U: (width, rank), float32.
        filters: V: (width, rank), float32.
        log_gates: log g at strength 1: (rank,), float32, at most 0; :data:`REMOVED` stands for a gate of 0.
    """

    patterns: Tensor
    filters: Tensor
    log_gates: Tensor

    def __post_init__(self) -> None:
        for name in ("patterns", "filters", "log_gates"):
            object.__setattr__(self, name, getattr(self, name).float().contiguous())
        shape = self.patterns.shape
        if len(shape) != 2 or self.filters.shape != shape or self.log_gates.shape != shape[1:]:
            raise ValueError(
                f"patterns {tuple(shape)}, filters {tuple(self.filters.shape)} and log-gates "
                f"{tuple(self.log_gates.shape)} do not fit together"
            )
        if not all(bool(value.isfinite().all()) for value in (self.patterns, self.filters, self.log_gates)):
            raise ValueError("a direction or a log-gate is not finite")
        if bool((self.log_gates > 0).any()):
            raise ValueError("a log-gate is above 0")

    @property
    def width(self) -> int:
        """Number of knowledge vectors."""
        return self.patterns.shape[0]

    @property
    def rank(self) -> int:
        """Number of directions."""
        return self.patterns.shape[1]

    def changes(self, strength: float = 1.0) -> Tensor:
        """g - 1 = exp(strength log g) - 1, without cancellation for gates near 1: (rank,), float32."""
        return torch.expm1(strength * self.log_gates)

    @property
    def replaces(self) -> bool:
        """Whether V^T U is not I: then the edit writes what it has not read, and its powers form no group."""
        if not self.rank:
            return False
        gaps = self.filters.T @ self.patterns - torch.eye(self.rank, device=self.patterns.device)
        return bool(gaps.abs().max() > BIORTHOGONAL)

    def acts(self, strength: float = 1.0) -> bool:
        """Whether any direction is changed."""
        sizes = self.patterns.abs().amax(0) * self.filters.abs().amax(0) if self.rank else torch.zeros(0)
        return bool(((self.changes(strength) != 0) & (sizes > 0)).any())

    def to(self, device: torch.device) -> Directions:
        """The same on another device."""
        if self.patterns.device == device:
            return self
        return Directions(self.patterns.to(device), self.filters.to(device), self.log_gates.to(device))


class LowRankEdit(WeightEdit):
    """Directions in the space of coefficients, each weakened by a gate of its own.

    Args:
        directions: What is done to each value matrix; kept on the CPU.
        strength: t in T(t) = I + U (exp(t log g) - 1) V^T: 1 as found, 0 nothing, -1 the inverse.
        metadata: Where the edit comes from.

    Attributes:
        of_each: Edits of each subject by itself, from the same measurements, for the search for a strength. Files do
            not hold them.

    Raises:
        ValueError: The strength is not finite.
    """

    kind = "low rank"

    def __init__(
        self,
        directions: Mapping[MatrixKey, Directions],
        strength: float = 1.0,
        metadata: EditMetadata | None = None,
    ) -> None:
        super().__init__(metadata)
        if not math.isfinite(strength):
            raise ValueError(f"the strength {strength} is not finite")
        ordered = sorted(directions.items(), key=lambda entry: entry[0].order)
        self.directions = {key: value.to(torch.device("cpu")) for key, value in ordered}
        self.strength = float(strength)
        self.of_each: dict[Hashable, LowRankEdit] = {}

    @property
    def widths(self) -> dict[MatrixKey, int]:
        """How many knowledge vectors the edit expects in each value matrix."""
        return {key: value.width for key, value in self.directions.items()}

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Change coefficients by hooks: m becomes T m, in float32 or better and rounded once to the model's dtype.

        Works on quantised and offloaded models too, since no weight is touched.

        Raises:
            UserError: The edit is for another model, or value matrices are split over processes.
        """
        matrices = list(self.value_matrices(model).values())
        if any(sharded_weight(matrix.module) is not None for matrix in matrices):
            raise UserError(
                "Directions go over all coefficients of a layer, and this model has them in several processes.",
                found="value matrices split by tensor parallelism",
                do="fold the edit into a checkpoint with kvw apply, and load that",
            )
        project = _Project(dict(self.directions), self.strength)
        return Hooks(intercept(matrices, project))

    def changed(self, matrix: ValueMatrix, weight: Tensor) -> Tensor:
        """W T = W + (W U)(g - 1) V^T, in float32 or better, rounded once to the weight's dtype.

        Beside the result it takes memory for a few rows in float32, not for the whole matrix.

        Raises:
            UserError: See :meth:`check_foldable`.
        """
        self.check_foldable(matrix, weight.dtype)
        exact = torch.promote_types(weight.dtype, torch.float32)
        directions = self.directions[matrix.key].to(weight.device)
        patterns, changes = directions.patterns.to(exact), directions.changes(self.strength).to(exact)
        filters, changed = directions.filters.to(exact).T, torch.empty_like(weight)
        # Knowledge vectors as columns, (hidden, width), whichever way the library keeps them. Both are views.
        before, after = (weight.T, changed.T) if matrix.vectors_first else (weight, changed)
        rows = max(1, ENTRIES_AT_A_TIME // before.shape[1])
        for begin in range(0, len(before), rows):
            some = slice(begin, begin + rows)
            columns = before[some].to(exact)  # (rows, width)
            # (rows, width) + ((rows, rank) * (rank,)) @ (rank, width)
            after[some] = columns + ((columns @ patterns) * changes) @ filters
        return changed

    @property
    def undoes(self) -> bool:
        """Whether it is an inverse."""
        return self.strength < 0

    @classmethod
    def joined(cls, edits: Sequence[LowRankEdit], metadata: EditMetadata) -> LowRankEdit:
        """T_1 T_2 ... as one edit: what folding them one after the other does. Their order matters.

        Raises:
            UserError: One of them is an inverse.
        """
        directions: dict[MatrixKey, Directions] = {}
        for edit in edits:
            if edit.undoes:
                raise UserError(
                    "An inverse of directions cannot be composed with other edits.", do="apply them one after the other"
                )
            for key, value in edit.directions.items():
                gates = (edit.strength * value.log_gates).clamp(min=REMOVED)
                own = Directions(value.patterns, value.filters, gates)
                directions[key] = _product(directions[key], own) if key in directions else own
        return cls(directions, 1.0, metadata)

    def scaled(self, strength: float, metadata: EditMetadata | None = None) -> LowRankEdit:
        """T to the power ``strength``: of this edit's strength, so that ``scaled(a).scaled(b)`` is ``scaled(a * b)``.

        Raises:
            UserError: A negative power of a direction that was taken out altogether; it cannot be brought back.
        """
        power = self.strength * strength
        if power < 0 and self.metadata.joins:
            raise UserError(
                "This edit was composed of several, and no power of it undoes that.",
                do="undo the edits that it was made of, the last one first",
            )
        if power < 0 and any(value.replaces for value in self.directions.values()):
            raise UserError(
                "This edit puts something in the place of what it takes out, and no power of it undoes that.",
                do="keep the original model",
            )
        lost = {key: int((value.changes(self.strength) == -1).sum()) for key, value in self.directions.items()}
        if power < 0 and any(lost.values()):
            first = next(key for key, count in lost.items() if count)
            raise UserError(
                "This edit takes directions out altogether, and nothing can bring them back.",
                found=f"{sum(lost.values())} gates of 0, the first in {first}",
                do="keep the original model; an edit with gates above 0 can be inverted",
            )
        return LowRankEdit(self.directions, power, signed(power, metadata or self.metadata))

    def mixed(self, share: float, metadata: EditMetadata | None = None) -> LowRankEdit:
        """1 - share + share g in place of every gate g at this strength; see :func:`kvw.edits.mix`."""
        directions = {}
        for key, value in self.directions.items():
            gates = torch.log1p(share * value.changes(self.strength).double()).clamp(min=REMOVED)
            directions[key] = Directions(value.patterns, value.filters, gates)
        return LowRankEdit(directions, 1.0, metadata or self.metadata)

    def inverted(self, metadata: EditMetadata | None = None) -> LowRankEdit:
        """T^-1, which undoes the edit.

        Raises:
            UserError: A gate is 0 (in float32).
        """
        return self.scaled(-1.0, metadata)

    @property
    def does_nothing(self) -> bool:
        """Whether no direction is weakened at this strength."""
        return not any(value.acts(self.strength) for value in self.directions.values())

    def describe(self) -> list[LayerSummary]:
        """Counts and means of the gates at this strength."""
        return summarise_low_rank(
            {key: (value.width, self.strength * value.log_gates) for key, value in self.directions.items()}
        )

    def tensors(self) -> dict[str, Tensor]:
        """``strength``, and ``<key>.patterns``, ``.filters`` and ``.log_gates`` for every value matrix."""
        stored = {"strength": torch.tensor(self.strength, dtype=torch.float64)}
        for key, value in self.directions.items():
            stored |= {
                f"{key}.patterns": value.patterns,
                f"{key}.filters": value.filters,
                f"{key}.log_gates": value.log_gates,
            }
        return stored

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> LowRankEdit:
        """Read the names written by :meth:`tensors`."""
        values = Values(tensors)
        strength = values.number("strength")
        directions = {
            key: Directions(
                values.take(f"{key}.patterns", 2, none=True),
                values.take(f"{key}.filters", 2, none=True),
                values.take(f"{key}.log_gates", 1, none=True),
            )
            for key in values.keys("patterns")
        }
        values.finish()
        check_sign(strength, metadata)
        return cls(directions, strength, metadata)


def _product(first: Directions, second: Directions) -> Directions:
    """T_1 T_2 = I + U_1 (g_1 - 1) V_1^T + (T_1 U_2) (g_2 - 1) V_2^T, in float64 and rounded once."""
    patterns, filters = first.patterns.double(), first.filters.double()
    after = second.patterns.double()
    after = after + patterns @ (first.changes().double()[:, None] * (filters.T @ after))
    return Directions(
        torch.cat([first.patterns, after.float()], dim=1),
        torch.cat([first.filters, second.filters], dim=1),
        torch.cat([first.log_gates, second.log_gates]),
    )


class _Project:
    """Applies T to coefficients; the directions follow them to their device."""

    def __init__(self, directions: dict[MatrixKey, Directions], strength: float) -> None:
        self._directions = directions
        self._strength = strength

    def __call__(self, seen: Seen) -> Tensor | None:
        device, dtype = seen.coefficients.device, seen.coefficients.dtype
        exact = seen.coefficients.to(torch.promote_types(dtype, torch.float32))
        if seen.experts is None:
            return self._apply(seen.matrices[0].key, exact, device).to(dtype)
        counts = torch.bincount(seen.experts, minlength=len(seen.matrices)).tolist()
        blocks = torch.split(exact, counts)
        parts = [
            self._apply(matrix.key, block, device) if matrix.key in self._directions and len(block) else block
            for matrix, block in zip(seen.matrices, blocks, strict=True)
        ]
        return torch.cat(parts).to(dtype)

    def _apply(self, key: MatrixKey, coefficients: Tensor, device: torch.device) -> Tensor:
        directions = self._directions[key]
        if directions.patterns.device != device:
            with torch.inference_mode(False):  # an inference tensor kept here would break later gradients
                directions = self._directions[key] = directions.to(device)
        dtype = coefficients.dtype
        amounts = (coefficients @ directions.filters.to(dtype)) * directions.changes(self._strength).to(dtype)
        return coefficients + amounts @ directions.patterns.to(dtype).T
