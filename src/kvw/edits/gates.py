"""Gates: W' = W diag(g), one factor for every knowledge vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import ENTRIES_AT_A_TIME, Attachment, EditMetadata
from kvw.edits.hooks import Hooks
from kvw.edits.summary import LayerSummary, summarise_log_gates
from kvw.edits.values import Values
from kvw.edits.weight_edit import WeightEdit
from kvw.errors import UserError
from kvw.models.coefficients import Seen, intercept, scale_coefficients
from kvw.models.value_matrix import MatrixKey, ValueMatrix, in_order


class GateEdit(WeightEdit):
    """Factors for the knowledge vectors, kept as logarithms.

    Args:
        log_gates: log g for each value matrix: (width,), float32, on the CPU; 0 leaves a vector as it is.
        metadata: Where the edit comes from.
    """

    kind = "gates"

    def __init__(self, log_gates: Mapping[MatrixKey, Tensor], metadata: EditMetadata | None = None) -> None:
        super().__init__(metadata)
        self.log_gates = {key: value.float().cpu() for key, value in in_order(log_gates)}

    @property
    def widths(self) -> dict[MatrixKey, int]:
        """How many knowledge vectors the edit expects in each value matrix."""
        return {key: value.numel() for key, value in self.log_gates.items()}

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Scale coefficients by hooks: m_i becomes g_i m_i, in float32 and rounded once to the model's dtype.

        Works on quantised and offloaded models too, since no weight is touched.

        Raises:
            UserError: The edit is for another model.
        """
        scale = Scaling({key: value.exp() for key, value in self.log_gates.items()})
        return Hooks(intercept(list(self.value_matrices(model).values()), scale))

    def changed(self, matrix: ValueMatrix, weight: Tensor) -> Tensor:
        """Multiply knowledge vector i by g_i, in float32 or better, and round once to the weight's dtype.

        Beside the result it takes memory for a few rows in float32, not for the whole matrix.

        Raises:
            UserError: See :meth:`check_foldable`.
        """
        self.check_foldable(matrix, weight.dtype)
        exact = torch.promote_types(weight.dtype, torch.float32)
        # The exponential on the CPU: gates are the same bit for bit wherever the weight is.
        gates = self.log_gates[matrix.key].to(exact).exp().to(weight.device)
        factors, changed = matrix.along_vectors(gates).expand_as(weight), torch.empty_like(weight)
        rows = max(1, ENTRIES_AT_A_TIME // weight.shape[1])
        for begin in range(0, len(weight), rows):
            some = slice(begin, begin + rows)
            changed[some] = weight[some].to(exact) * factors[some]
        return changed

    @property
    def undoes(self) -> bool:
        """Whether it is an inverse."""
        return self.metadata.amplifies and self.metadata.undoes

    @property
    def does_nothing(self) -> bool:
        """Whether all gates are 1 in the float32 in which they act."""
        return all(bool((value.exp() == 1).all()) for value in self.log_gates.values())

    def describe(self) -> list[LayerSummary]:
        """Counts and means of the gates."""
        return summarise_log_gates(self.log_gates)

    def log_factors(self) -> Mapping[MatrixKey, Tensor]:
        """The log-gates themselves."""
        return self.log_gates

    @classmethod
    def joined(cls, edits: Sequence[Self], metadata: EditMetadata) -> GateEdit:
        """Log-gates add up; see :func:`kvw.edits.compose`."""
        sums = {}
        for key in {key for edit in edits for key in edit.log_gates}:
            parts = torch.stack([edit.log_gates[key] for edit in edits if key in edit.log_gates]).double()
            # Sorted, so that the sum is the same to the last bit in whatever order the edits come.
            sums[key] = parts.sort(0).values.sum(0)
        return cls._derived(sums, metadata)

    def scaled(self, strength: float, metadata: EditMetadata | None = None) -> GateEdit:
        """Log-gates times the strength; see :func:`kvw.edits.scale`."""
        return self._derived(
            {key: value * strength for key, value in self.log_gates.items()}, metadata or self.metadata
        )

    def mixed(self, share: float, metadata: EditMetadata | None = None) -> GateEdit:
        """The logarithm of 1 - share + share g; see :func:`kvw.edits.mix`."""
        if share == 1:  # where a gate near 0 would otherwise vanish beside the 1 it is taken from
            return self._derived(self.log_gates, metadata or self.metadata)
        mixed = {key: torch.log1p(share * torch.expm1(value.double())) for key, value in self.log_gates.items()}
        return self._derived(mixed, metadata or self.metadata)

    def inverted(self, metadata: EditMetadata | None = None) -> GateEdit:
        """Log-gates with the other sign; see :func:`kvw.edits.invert`.

        Raises:
            UserError: A gate or its reciprocal is not a normal float32 number, so its product with a coefficient has
                lost digits that no factor brings back.
        """
        smallest = torch.finfo(torch.float32).tiny
        for key, value in self.log_gates.items():
            lost = (value.exp() < smallest) | ((-value).exp() < smallest)
            if lost.any():
                raise UserError(
                    "The edit has gates that cannot be inverted in float32.",
                    found=f"{int(lost.sum())} of {lost.numel()} in {key}, such as exp({float(value[lost][0]):.1f})",
                    do="detach the edit, or go back to the original checkpoint",
                )
        return self._derived({key: -value for key, value in self.log_gates.items()}, metadata or self.metadata)

    def tensors(self) -> dict[str, Tensor]:
        """``<key>.log_gates`` for every value matrix."""
        return {f"{key}.log_gates": value for key, value in self.log_gates.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> GateEdit:
        """Read the names written by :meth:`tensors`."""
        values = Values(tensors)
        log_gates = {key: values.row(f"{key}.log_gates") for key in values.keys("log_gates")}
        values.finish()
        if not metadata.amplifies:
            for key, value in log_gates.items():
                if bool((value > 0).any()):
                    raise ValueError(f"{key} holds gates above 1, and the edit is not marked as one that amplifies")
        return cls(log_gates, metadata)

    @classmethod
    def _derived(cls, log_gates: Mapping[MatrixKey, Tensor], metadata: EditMetadata) -> GateEdit:
        """An edit made from others, marked if it has gates above 1."""
        amplifies = any(bool((value > 0).any()) for value in log_gates.values())
        return cls(log_gates, metadata.model_copy(update={"amplifies": amplifies}))


class Scaling:
    """Multiplies coefficients by gates, which follow them to their device."""

    def __init__(self, gates: dict[MatrixKey, Tensor]) -> None:
        self._gates = gates

    def __call__(self, seen: Seen) -> Tensor | None:
        """The products; None where there are no gates."""
        device = seen.coefficients.device
        keys = [matrix.key for matrix in seen.matrices if matrix.key in self._gates]
        if self._gates[keys[0]].device != device:
            with torch.inference_mode(False):  # an inference tensor kept here would break later gradients
                self._gates.update({key: self._gates[key].to(device) for key in keys})
        return scale_coefficients(seen, self._gates)
