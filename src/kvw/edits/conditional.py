"""Gates that are in force only for samples of which a filter says so: weakening that depends on the prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Attachment
from kvw.edits.gates import GateEdit, Scaling
from kvw.edits.hooks import Hooks
from kvw.edits.prompts import Prompts, observe_prompts
from kvw.edits.steering import SteeringEdit
from kvw.errors import UserError
from kvw.models.coefficients import Seen, intercept
from kvw.models.layer_inputs import InputHook, at_columns, decoder_layers


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

    @classmethod
    def of(cls, edit: SteeringEdit, layer: int, threshold: float = 0.5) -> Condition:
        """The condition under which a steering edit would act in one of its layers.

        Raises:
            UserError: It does not act there.
        """
        if layer not in edit.steers:
            raise UserError(
                f"The steering edit does nothing in layer {layer}.",
                found=f"layers {', '.join(map(str, edit.steers))}",
                do="decide in one of its layers",
            )
        return cls(layer, edit.steers[layer].filter, threshold)


def attach_where(edit: GateEdit, model: PreTrainedModel, condition: Condition) -> Attachment:
    """Put gates in force for those samples for which the condition holds; the others are computed as without them.

    The decision falls in the forward itself, when the prompt passes the layer of the condition, so it costs no forward
    of its own. It covers everything after it: the gates from that layer on, at all positions, and all generated tokens.

    Args:
        edit: Gates in the layer of the condition and after it.
        model: Its model.
        condition: Who is affected.

    Raises:
        UserError: The edit is of another model, or has gates in layers that have passed before the decision falls.
    """
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
    prompts = observe_prompts(model)
    decision = _Decision(prompts, condition)
    scaling = Scaling({key: value.exp() for key, value in edit.log_gates.items()})
    return Hooks(
        [
            prompts.tap(InputHook(layers[condition.layer], condition.layer, decision.decide), always=True),
            *intercept(list(matrices.values()), lambda seen: decision.choose(seen, scaling(seen))),
        ]
    )


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
            gates = at_columns(exact, span.last.to(states.device)) @ self._condition.filter.to(exact)
            self._chosen = gates > self._condition.threshold
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
