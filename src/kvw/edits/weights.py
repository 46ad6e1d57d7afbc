"""Other weights: what training leaves behind, as an edit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Attachment, EditMetadata
from kvw.edits.summary import LayerSummary
from kvw.edits.values import Values
from kvw.edits.weight_edit import WeightEdit
from kvw.models.value_matrix import Parameter

PREFIX, SHARE = "weight.", "share"
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class WeightsEdit(WeightEdit):
    """Weights in place of those that a model has, or a mixture of both: W'' = (1 - share) W + share W'.

    It is as large as the weights that it replaces, and means nothing on other weights than those it was made on.

    Args:
        weights: W' by the dotted name of its parameter, on the CPU.
        share: 1 puts W' itself in place.
        metadata: Where the edit comes from.
    """

    kind = "weights"
    reads_states = True

    def __init__(self, weights: Mapping[str, Tensor], share: float = 1.0, metadata: EditMetadata | None = None) -> None:
        super().__init__(metadata)
        self.weights, self.share = dict(sorted(weights.items())), float(share)

    def parts(self, model: PreTrainedModel) -> list[Parameter]:
        """The parameters.

        Raises:
            UserError: The model lacks one of them, or it has another shape.
        """
        live = dict(model.named_parameters())
        wrong = [
            f"{name}: {list(value.shape)} in the edit, "
            f"{list(live[name].shape) if name in live else 'missing'} in the model"
            for name, value in self.weights.items()
            if name not in live or live[name].shape != value.shape
        ]
        if wrong:
            raise self.misfit(model, wrong)
        return [Parameter.of(model, name) for name in self.weights]

    def check_model(self, model: PreTrainedModel) -> None:
        """See :meth:`parts`."""
        self.parts(model)

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Put the weights in place, and keep those that were there in main memory until :meth:`Attachment.detach`.

        Raises:
            UserError: The edit is for another model.
        """
        before = {part: part.read().to("cpu", copy=True) for part in self.parts(model)}
        attached = _Replaced(before)
        try:
            self.fold(model)
        except BaseException:
            attached.detach()
            raise
        return attached

    def changed(self, matrix: Parameter, weight: Tensor) -> Tensor:
        """The mixture, in float32 or better and rounded once to the weight's dtype.

        Raises:
            UserError: See :meth:`check_foldable`.
        """
        self.check_foldable(matrix, weight.dtype)
        other = self.weights[matrix.parameter].to(weight.device)
        if self.share == 1:
            return other.to(weight.dtype)
        exact = torch.promote_types(weight.dtype, torch.float32)
        return torch.lerp(weight.to(exact), other.to(exact), self.share).to(weight.dtype)

    def mixed(self, share: float, metadata: EditMetadata | None = None) -> WeightsEdit:
        """The same weights at a part of their share; see :func:`kvw.edits.mix`."""
        return WeightsEdit(self.weights, self.share * share, metadata or self.metadata)

    @property
    def does_nothing(self) -> bool:
        """Whether there is nothing to put in place."""
        return not self.weights or self.share == 0

    def describe(self) -> list[LayerSummary]:
        """How many numbers each weight has."""
        return [LayerSummary.of_weight(name, value.numel()) for name, value in self.weights.items()]

    def tensors(self) -> dict[str, Tensor]:
        """``share``, and ``weight.<parameter>`` for each parameter."""
        stored = {SHARE: torch.tensor(self.share, dtype=torch.float64)}
        return stored | {PREFIX + name: value for name, value in self.weights.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> WeightsEdit:
        """Read the names written by :meth:`tensors`."""
        values = Values(tensors)
        share = values.number(SHARE)
        if not 0 <= share <= 1:
            raise ValueError(f"{SHARE} is {share:g}, not from 0 to 1")
        names = [name for name in tensors if name.startswith(PREFIX)]
        weights = {name.removeprefix(PREFIX): values.take(name, tensors[name].ndim, DTYPES) for name in names}
        values.finish()
        return cls(weights, share, metadata)


class _Replaced(Attachment):
    """The weights that were there before."""

    def __init__(self, before: Mapping[Parameter, Tensor]) -> None:
        self._before = dict(before)

    def detach(self) -> None:
        """Give them back; there is nothing to do a second time."""
        for part, values in self._before.items():
            part.write(values)
        self._before = {}
