"""Offset: a small model beside a frozen one, whose change is added to the frozen model's logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from kvw.edits.companion import Companion, picture_tokens
from kvw.edits.edit import Attachment, Edit, EditMetadata, check_sign, signed
from kvw.edits.hooks import Hooks
from kvw.edits.summary import LayerSummary
from kvw.edits.values import Values
from kvw.errors import UserError
from kvw.measuring.fingerprint import combined_digest, weight_digests
from kvw.models.checkpoint import find_checkpoint
from kvw.models.forward_names import kept_cache, named_arguments
from kvw.models.loading import load_model
from kvw.models.whole_prompts import Accompanied

PREFIX, STRENGTH = "weight.", "strength"
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
CHECKPOINT, FINGERPRINT = "offset", "offset_fingerprint"
"""Settings that say which small model an edit is of."""


class OffsetEdit(Edit):
    """log p = log softmax(l_M + alpha (log o' - log o)): M stays as it is, o' is o with the weights of this edit.

    It needs nothing of M but its logits, and M still knows everything.

    Source: delta-unlearning, Huang et al., arXiv 2404.11045; see docs/methods/delta.md.

    Args:
        weights: Those of o' that are not o's, by name, on the CPU.
        strength: alpha; negative adds the opposite.
        metadata: Where the edit comes from; its settings say where o is.
        small: o; None to load it when it is needed.
    """

    kind = "offset"
    acts = "An offset edit acts on logits"

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        strength: float = 1.0,
        metadata: EditMetadata | None = None,
        small: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(metadata)
        if not math.isfinite(strength):
            raise ValueError(f"a strength of {strength} is not finite")
        self.weights, self.strength = dict(sorted(weights.items())), float(strength)
        self._small = [small]  # shared by all strengths

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Add the difference to the logits of each forward.

        Raises:
            UserError: The small model is not where it was, or is another one.
        """
        if self.strength == 0:
            return Hooks([])
        small = self.small()
        torch.nn.Module.to(small, model.device)
        weights = {name: value.to(small.get_parameter(name)) for name, value in self.weights.items()}

        def after(**inputs: Any) -> Any:
            return functional_call(small, weights, (), inputs)

        companion = Companion(small, small, after, picture_tokens(model))
        return Hooks(
            [model.register_forward_hook(partial(self._hook, companion), with_kwargs=True), Accompanied(model)]
        )

    def _hook(
        self, companion: Companion, model: PreTrainedModel, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        if not hasattr(output, "logits"):
            raise UserError(
                "An offset is added to logits, and the model gave none.",
                found=type(output).__name__,
                do="call the model with return_dict, and a model that predicts tokens",
            )
        arguments = named_arguments(model, inputs, named)
        with torch.no_grad():
            output.logits = companion.add(output.logits, self.strength, arguments, kept_cache(model, output))
        return output

    def small(self) -> PreTrainedModel:
        """o, loaded once, without gradients and in evaluation mode.

        Raises:
            UserError: It is not where it was, or is another one.
        """
        small = self._small[0] or self._loaded()
        self._small[0] = small
        small.requires_grad_(False)
        small.eval()
        return small

    def _loaded(self) -> PreTrainedModel:
        where = str(self.metadata.settings.get(CHECKPOINT, ""))
        checkpoint = find_checkpoint(where)
        found = combined_digest(weight_digests(checkpoint.folder))
        if found != self.metadata.settings.get(FINGERPRINT):
            raise UserError(
                f"{where} is not the small model that this edit was made with.",
                found=f"weights with SHA-256 {found[:12]}",
                do="put the model back that it was, or make the edit again",
            )
        return load_model(checkpoint)

    def check_model(self, model: PreTrainedModel) -> None:
        """Any model with the same vocabulary; which that is was found out when the edit was made.

        Raises:
            UserError: The small model has no such weights.
        """
        live = dict(self.small().named_parameters())
        wrong = [name for name, value in self.weights.items() if name not in live or live[name].shape != value.shape]
        if wrong:
            raise self.misfit(self.small(), wrong)

    def scaled(self, strength: float, metadata: EditMetadata | None = None) -> OffsetEdit:
        """The same difference times ``strength``; 0 leaves the model as it is, bit for bit."""
        of = self.strength * strength
        edit = OffsetEdit(self.weights, of, signed(of, metadata or self.metadata))
        edit.metadata.settings.update({key: self.metadata.settings.get(key) for key in (CHECKPOINT, FINGERPRINT)})
        edit._small = self._small
        return edit

    @property
    def does_nothing(self) -> bool:
        """Whether no logit is moved."""
        return not self.weights or self.strength == 0

    def describe(self) -> list[LayerSummary]:
        """How many numbers each weight of the small model has."""
        return [LayerSummary.of_weight(name, value.numel()) for name, value in self.weights.items()]

    def tensors(self) -> dict[str, Tensor]:
        """``strength``, and ``weight.<parameter>`` for each parameter of the small model that differs."""
        stored = {STRENGTH: torch.tensor(self.strength, dtype=torch.float64)}
        return stored | {PREFIX + name: value for name, value in self.weights.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> OffsetEdit:
        """Read the names written by :meth:`tensors`."""
        values = Values(tensors)
        strength = values.number(STRENGTH)
        check_sign(strength, metadata)
        names = [name for name in tensors if name.startswith(PREFIX)]
        weights = {name.removeprefix(PREFIX): values.take(name, tensors[name].ndim, DTYPES) for name in names}
        values.finish()
        return cls(weights, strength, metadata)
