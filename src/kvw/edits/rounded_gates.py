"""Gates multiplied in one after the other in the model's own dtype, as the paper authors' code does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Attachment, EditMetadata
from kvw.edits.summary import LayerSummary, summarise_log_gates
from kvw.edits.values import Values
from kvw.edits.weight_edit import WeightEdit
from kvw.models.value_matrix import MatrixKey, ValueMatrix, in_order

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""What the gates of a model may be rounded to: the dtypes of models."""


class RoundedGateEdit(WeightEdit):
    """A sequence of gates, each rounded to the model's dtype and multiplied into the rounded weights.

    In bfloat16 the result is not the product of the gates: a gate above 1 - 2^-9 rounds to 1 and does nothing. This
    kind exists to reproduce published numbers; :class:`kvw.edits.gates.GateEdit` is exact.

    Args:
        steps: For each value matrix the gates of every step: (steps, width), in the model's dtype, on the CPU.
        metadata: Where the edit comes from.
    """

    kind = "rounded gates"

    def __init__(self, steps: Mapping[MatrixKey, Tensor], metadata: EditMetadata | None = None) -> None:
        super().__init__(metadata)
        self.steps = {key: value.cpu() for key, value in in_order(steps)}

    @property
    def widths(self) -> dict[MatrixKey, int]:
        """How many knowledge vectors the edit expects in each value matrix."""
        return {key: value.shape[1] for key, value in self.steps.items()}

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Exchange the weights for the weakened ones; detaching puts the originals back bit for bit.

        Raises:
            UserError: The edit is for another model, or its weights are quantised.
        """
        matrices = self.value_matrices(model)
        originals = KeptWeights(list(matrices.values()))
        try:
            self.fold(model)
        except BaseException:  # memory may run out between two matrices
            originals.detach()
            raise
        return originals

    def changed(self, matrix: ValueMatrix, weight: Tensor) -> Tensor:
        """Multiply each step's gates in turn, rounding to the weight's dtype every time."""
        for gates in self.steps[matrix.key]:
            weight = weight * matrix.along_vectors(gates.to(weight.device, weight.dtype))
        return weight

    @property
    def does_nothing(self) -> bool:
        """Whether all gates are 1."""
        return all(bool((steps == 1).all()) for steps in self.steps.values())

    def describe(self) -> list[LayerSummary]:
        """Counts and means of the product of all steps' rounded gates (the rounding of the weights is not in it)."""
        return summarise_log_gates(self.log_factors())

    def log_factors(self) -> dict[MatrixKey, Tensor]:
        """Logarithms of the product of all steps' rounded gates (the rounding of the weights is not in it)."""
        return {key: steps.float().log().sum(0) for key, steps in self.steps.items()}

    @classmethod
    def joined(cls, edits: Sequence[Self], metadata: EditMetadata) -> RoundedGateEdit:
        """All steps one after the other: bit for bit what folding the edits in turn does."""
        keys = {key for edit in edits for key in edit.steps}
        return cls({key: torch.cat([edit.steps[key] for edit in edits if key in edit.steps]) for key in keys}, metadata)

    def tensors(self) -> dict[str, Tensor]:
        """``<key>.steps`` for every value matrix."""
        return {f"{key}.steps": value.contiguous() for key, value in self.steps.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> RoundedGateEdit:
        """Read the names written by :meth:`tensors`."""
        values = Values(tensors)
        steps = {key: values.take(f"{key}.steps", 2, DTYPES) for key in values.keys("steps")}
        values.finish()
        for key, value in steps.items():
            if not bool(((value >= 0) & (value <= 1)).all()):
                raise ValueError(f"{key} holds no gates (numbers from 0 to 1)")
        return cls(steps, metadata)


class KeptWeights(Attachment):
    """Copies of value matrices that :meth:`detach` writes back."""

    def __init__(self, matrices: list[ValueMatrix]) -> None:
        self._originals = [(matrix, matrix.read().clone()) for matrix in matrices]

    def detach(self) -> None:
        """Write the originals back."""
        for matrix, original in self._originals:
            matrix.write(original)
        self._originals = []
