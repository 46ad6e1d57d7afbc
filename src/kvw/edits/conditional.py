"""Gates that act only on samples that a filter picks: weakening that depends on the prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Attachment, Edit, EditMetadata
from kvw.edits.gates import GateEdit, Scaling
from kvw.edits.hooks import Hooks
from kvw.edits.prompts import NO_PROMPT, Prompts, observe_prompts
from kvw.edits.steering import SteeringEdit
from kvw.edits.summary import LayerSummary
from kvw.edits.values import Values
from kvw.errors import UserError
from kvw.models.coefficients import Seen, intercept
from kvw.models.layer_inputs import InputHook, at_columns, decoder_layers
from kvw.models.value_matrix import MatrixKey, ValueMatrix


@dataclass(frozen=True)
class Condition:
    """Holds for a sample if a . h > threshold for the state h of its last prompt token that enters a layer.

    Args:
        layer: 0-based.
        filter: a: (hidden,), float32.
        threshold: A filter of steering gives about 1 for forget samples and 0 for retain samples.
    """

    layer: int
    filter: Tensor
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ValueError(f"a condition in layer {self.layer}")
        if self.filter.ndim != 1 or not bool(self.filter.isfinite().all()) or not math.isfinite(self.threshold):
            raise ValueError("a condition needs a filter (a row of finite numbers) and a finite threshold")

    @classmethod
    def of(cls, edit: SteeringEdit, layer: int, threshold: float = 0.5) -> Condition:
        """The condition under which a steering edit would act in one of its layers.

        Raises:
            UserError: It does not act there.
        """
        if layer not in edit.steers:
            raise UserError(
                f"The edit does nothing in layer {layer}.",
                found=f"layers {', '.join(map(str, edit.steers))}",
                do="decide in one of its layers",
            )
        return cls(layer, edit.steers[layer].filter, threshold)


class ConditionalGateEdit(Edit):
    """Gates that act only on samples for which a condition holds, see :func:`attach_where`.

    Args:
        gates: In the layer of the condition and after it.
        condition: Who is affected.
        metadata: Where the edit comes from; None for that of the gates.
    """

    kind = "conditional gates"
    acts = "A conditional edit weakens some samples and not others"
    reads_states = True

    def __init__(self, gates: GateEdit, condition: Condition, metadata: EditMetadata | None = None) -> None:
        super().__init__(metadata or gates.metadata)
        self._log_gates = gates.log_gates
        self.condition = condition

    @property
    def gates(self) -> GateEdit:
        """The gates for samples that are affected, as an edit for all samples."""
        return GateEdit(self._log_gates, self.metadata)

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Decide in every forward over prompts who is affected, and scale the coefficients of these samples.

        Raises:
            UserError: See :func:`attach_where`.
        """
        return attach_where(self.gates, model, self.condition)

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that this edit is not for.

        Raises:
            UserError: See :func:`attach_where`.
        """
        _check_fit(self.gates, model, self.condition)

    @property
    def does_nothing(self) -> bool:
        """Whether the gates do nothing, or the condition holds for no state."""
        never = self.condition.threshold >= 0 and not bool(self.condition.filter.any())
        return never or self.gates.does_nothing

    def describe(self) -> list[LayerSummary]:
        """Counts and means of the gates, as they are for samples that are affected."""
        return self.gates.describe()

    def scaled(self, strength: float, metadata: EditMetadata | None = None) -> ConditionalGateEdit:
        """Log-gates times the strength, for the same samples."""
        return ConditionalGateEdit(self.gates.scaled(strength, metadata or self.metadata), self.condition)

    def tensors(self) -> dict[str, Tensor]:
        """``<key>.log_gates`` for every value matrix, and ``condition.layer``, ``.filter`` and ``.threshold``."""
        return self.gates.tensors() | {
            "condition.layer": torch.tensor(self.condition.layer),
            "condition.filter": self.condition.filter.float().cpu().contiguous(),
            "condition.threshold": torch.tensor(self.condition.threshold, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> ConditionalGateEdit:
        """Read the names written by :meth:`tensors`."""
        gates = {name: value for name, value in tensors.items() if not name.startswith("condition.")}
        values = Values({name: value for name, value in tensors.items() if name not in gates})
        condition = Condition(
            values.whole("condition.layer"), values.row("condition.filter"), values.number("condition.threshold")
        )
        values.finish()
        return cls(GateEdit.from_tensors(gates, metadata), condition, metadata)


def attach_where(edit: GateEdit, model: PreTrainedModel, condition: Condition) -> Attachment:
    """Apply gates to the samples for which the condition holds; the others are computed as without them.

    The decision falls in the forward itself, when the prompt passes the layer of the condition, so it costs no forward
    of its own. It covers everything after it: the gates from that layer on, at all positions, and all generated tokens.

    Args:
        edit: Gates in the layer of the condition and after it.
        model: Its model.
        condition: Who is affected.

    Raises:
        UserError: The edit is for another model, or has gates in layers that have passed before the decision falls.
    """
    matrices = _check_fit(edit, model, condition)
    layers = decoder_layers(model)
    prompts = observe_prompts(model)
    decision = _Decision(prompts, condition)
    scaling = Scaling({key: value.exp() for key, value in edit.log_gates.items()})
    gates = intercept(list(matrices.values()), lambda seen: decision.choose(seen, scaling(seen)))
    tap = prompts.tap(InputHook(layers[condition.layer], condition.layer, decision.decide), always=True)
    return Hooks([tap, *gates])


def _check_fit(edit: GateEdit, model: PreTrainedModel, condition: Condition) -> dict[MatrixKey, ValueMatrix]:
    """The live value matrices of the gates."""
    matrices = edit.value_matrices(model)
    early = sorted({key.layer for key in matrices if key.layer < condition.layer})
    if early:
        raise UserError(
            f"The edit has gates in layers before layer {condition.layer}, where it is decided who is affected.",
            found=f"layers {', '.join(map(str, early))}",
            do=f"decide in layer {early[0]}, or make the edit for layers {condition.layer} and after",
        )
    layers, hidden = decoder_layers(model), int(model.config.get_text_config().hidden_size)
    if condition.layer >= len(layers) or condition.filter.shape != (hidden,):
        raise UserError(
            "The condition does not fit this model.",
            found=f"layer {condition.layer} of {len(layers)}, a filter {tuple(condition.filter.shape)}",
            do=f"use a filter of {hidden} numbers that was made on this model",
        )
    return matrices


class _Decision:
    """Who is affected in the forward that is going on."""

    def __init__(self, prompts: Prompts, condition: Condition) -> None:
        self._prompts = prompts
        self._condition = condition
        self._chosen: Tensor | None = None

    def decide(self, states: Tensor) -> None:
        span = self._prompts.span
        span.check(states)
        if span.last is not None:
            exact = states.to(torch.promote_types(states.dtype, torch.float32))
            last = span.last.to(states.device)
            gates = at_columns(exact, last) @ self._condition.filter.to(exact)
            self._chosen = (gates > self._condition.threshold) & (last != NO_PROMPT)
        elif self._chosen is None or len(self._chosen) != span.rows:
            raise UserError(
                "Generated tokens come in other rows than their prompts, so it is unknown who is affected.",
                found=f"{span.rows} rows after {0 if self._chosen is None else len(self._chosen)} prompts",
                do="generate with model.generate",
            )

    def choose(self, seen: Seen, scaled: Tensor | None) -> Tensor | None:
        """Scaled coefficients in the rows of those who are affected, the original ones in the others."""
        if scaled is None or self._chosen is None:
            return None
        by_token = self._chosen.to(scaled.device).repeat_interleave(self._prompts.span.tokens)
        chosen = by_token if seen.tokens is None else by_token[seen.tokens]
        return torch.where(chosen.view(*scaled.shape[:-1], 1), scaled, seen.coefficients)
