"""Steering: a shift of hidden states while the model runs, with a strength that the prompt itself decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Attachment, Edit, EditMetadata, check_sign, signed
from kvw.edits.hooks import Hooks
from kvw.edits.prompts import NO_PROMPT, Prompts, observe_prompts
from kvw.edits.summary import LayerSummary
from kvw.edits.values import Values
from kvw.errors import UserError
from kvw.models.layer_inputs import InputHook, at_columns, decoder_layers

Where = Literal["prompt", "last"]
"""``prompt``: all positions of the prompt are shifted. ``last``: only its last position."""


@dataclass(frozen=True)
class Steer:
    """What steering does in one layer: f(h) = (a . h) d.

    Args:
        filter: a, which reads how much of what is to be erased is in a state: (hidden,), float32.
        direction: d, where such a state is moved: (hidden,), float32.
    """

    filter: Tensor
    direction: Tensor

    def __post_init__(self) -> None:
        for name in ("filter", "direction"):
            object.__setattr__(self, name, getattr(self, name).float().cpu().contiguous())
        if self.filter.ndim != 1 or self.filter.shape != self.direction.shape:
            raise ValueError(
                f"a filter {tuple(self.filter.shape)} and a direction {tuple(self.direction.shape)} do not fit together"
            )
        if not bool(self.filter.isfinite().all() and self.direction.isfinite().all()):
            raise ValueError("a filter or a direction is not finite")


class SteeringEdit(Edit):
    """Shifts of the hidden states that enter decoder layers, before their norm: h' = h + t (a . h_last) d.

    h_last is the state of the prompt's last token, so each sample has a strength of its own, which is near 0 for
    samples that the edit is not about. The shift goes to all positions of the prompt; generated tokens see it through
    attention. The edit acts while it is attached and is never folded into weights.

    Source: MLLMEraser, Ding et al., arXiv 2510.04217; see docs/methods/steering.md.

    Args:
        steers: What is done in each layer, by its 0-based number.
        strength: t; negative moves states the other way.
        metadata: Where the edit comes from.
        where: Which positions of the prompt are shifted.
        decoding: Whether generated positions are shifted, too, as much as their prompt was.
    """

    kind = "steering"
    acts = "A steering edit acts on states"
    reads_states = True

    def __init__(
        self,
        steers: Mapping[int, Steer],
        strength: float = 1.0,
        metadata: EditMetadata | None = None,
        *,
        where: Where = "prompt",
        decoding: bool = False,
    ) -> None:
        super().__init__(metadata)
        if not math.isfinite(strength):
            raise ValueError(f"a strength of {strength} is not finite")
        if where not in get_args(Where):
            raise UserError("There is no such place to steer.", found=repr(where), do="use 'prompt' or 'last'")
        self.steers = dict(sorted(steers.items()))
        self.strength = float(strength)
        self.where: Where = where
        self.decoding = decoding

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Shift states by hooks, in float32 or better and rounded once to the model's dtype.

        Works on quantised and offloaded models too. At strength 0 nothing is hooked.

        Raises:
            UserError: The edit is for another model, or the model reads prompts in an encoder.
        """
        self.check_model(model)
        if self.strength == 0:
            return Hooks([])
        prompts = observe_prompts(model)
        layers = decoder_layers(model)
        taps = []
        for number, steer in self.steers.items():
            shift = _Shift(prompts, steer, self.strength, self.where, self.decoding)
            taps.append(prompts.tap(InputHook(layers[number], number, shift), always=self.decoding))
        return Hooks(taps)

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that this edit is not for.

        Raises:
            UserError: It lacks one of the layers, or has another hidden width.
        """
        self.check_layers(model, {number: len(steer.filter) for number, steer in self.steers.items()})

    def scaled(self, strength: float, metadata: EditMetadata | None = None) -> SteeringEdit:
        """The same shifts times ``strength``; 0 leaves the model as it is, bit for bit."""
        return SteeringEdit(
            self.steers,
            self.strength * strength,
            signed(self.strength * strength, metadata or self.metadata),
            where=self.where,
            decoding=self.decoding,
        )

    def inverted(self, metadata: EditMetadata | None = None) -> SteeringEdit:
        """The opposite shifts, towards what was to be erased.

        Attached together with the edit they do not cancel exactly: the second reads states that the first has moved.
        """
        return self.scaled(-1.0, metadata)

    @property
    def does_nothing(self) -> bool:
        """Whether no state is moved."""
        return not (
            self.strength and any(bool(one.filter.any() and one.direction.any()) for one in self.steers.values())
        )

    def describe(self) -> list[LayerSummary]:
        """The length of the shift where a . h is 1, for each layer."""
        return [
            LayerSummary.of_shift(f"layer.{number}", abs(self.strength) * float(steer.direction.norm()))
            for number, steer in self.steers.items()
        ]

    def tensors(self) -> dict[str, Tensor]:
        """``strength``, ``last_only``, ``decoding``, and ``layer.<n>.filter`` and ``.direction`` for every layer."""
        stored = {
            "strength": torch.tensor(self.strength, dtype=torch.float64),
            "last_only": torch.tensor(self.where == "last"),
            "decoding": torch.tensor(self.decoding),
        }
        for number, steer in self.steers.items():
            stored |= {f"layer.{number}.filter": steer.filter, f"layer.{number}.direction": steer.direction}
        return stored

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> SteeringEdit:
        """Read the names written by :meth:`tensors`."""
        values = Values(tensors)
        strength, last_only, decoding = values.number("strength"), values.flag("last_only"), values.flag("decoding")
        steers = {
            key.layer: Steer(values.row(f"layer.{key.layer}.filter"), values.row(f"layer.{key.layer}.direction"))
            for key in values.keys("filter")
        }
        values.finish()
        check_sign(strength, metadata)
        return cls(steers, strength, metadata, where="last" if last_only else "prompt", decoding=decoding)


class _Shift:
    """Shifts what enters one layer; the vectors follow it to its device."""

    def __init__(self, prompts: Prompts, steer: Steer, strength: float, where: Where, decoding: bool) -> None:
        self._prompts = prompts
        self._filter, self._direction = steer.filter, steer.direction
        self._strength, self._where, self._decoding = strength, where, decoding
        self._amounts: Tensor | None = None

    def __call__(self, states: Tensor) -> Tensor:
        span = self._prompts.span
        if self._filter.device != states.device:
            with torch.inference_mode(False):  # an inference tensor kept here would break later gradients
                self._filter, self._direction = self._filter.to(states.device), self._direction.to(states.device)
        exact = states.to(torch.promote_types(states.dtype, torch.float32))
        span.check(states)
        if span.last is None:
            amounts = self._remembered(len(states))[:, None]
        else:
            last = span.last.to(states.device)
            gates = (at_columns(exact, last) @ self._filter.to(exact.dtype)) * self._strength
            gates = gates * (last != NO_PROMPT)
            if self._decoding:
                self._amounts = gates.detach()
            amounts = gates[:, None] * self._chosen(last, states.shape[1])
        return (exact + amounts[..., None] * self._direction.to(exact.dtype)).to(states.dtype)

    def _chosen(self, last: Tensor, columns: int) -> Tensor:
        """Which positions are shifted: (rows, tokens), bool."""
        place = torch.arange(columns, device=last.device) - last[:, None]
        chosen = place <= 0 if self._where == "prompt" else place == 0
        return chosen | (place > 0) if self._decoding else chosen

    def _remembered(self, rows: int) -> Tensor:
        if self._amounts is None or len(self._amounts) != rows:
            raise UserError(
                "Generated tokens come in other rows than their prompts, so their strengths are unknown.",
                found=f"{rows} rows after {0 if self._amounts is None else len(self._amounts)} prompts",
                do="generate with model.generate, or make the edit with decoding=False",
            )
        return self._amounts
