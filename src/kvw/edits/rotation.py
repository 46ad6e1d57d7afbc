"""Rotations: hidden states are turned out of a subspace while the model answers, and keep their length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Attachment, Edit, EditMetadata
from kvw.edits.hooks import Hooks
from kvw.edits.prompts import Prompts, observe_prompts
from kvw.edits.summary import LayerSummary
from kvw.edits.values import Values
from kvw.models.layer_inputs import InputHook, decoder_layers


@dataclass(frozen=True)
class Rotation:
    """What is done in one layer.

    Args:
        forget: V, the subspace that states are turned out of, with orthonormal columns: (hidden, k), float32.
        retain: Q, the subspace in which nothing changes, with orthonormal columns: (hidden, q), float32, q perhaps 0.
        threshold: tau: states with |Q^T h| / |h| of tau or more stay as they are.
    """

    forget: Tensor
    retain: Tensor
    threshold: float

    def __post_init__(self) -> None:
        for name in ("forget", "retain"):
            object.__setattr__(self, name, getattr(self, name).float().cpu().contiguous())
        if self.forget.ndim != 2 or self.retain.ndim != 2 or len(self.forget) != len(self.retain):
            raise ValueError(f"subspaces {tuple(self.forget.shape)} and {tuple(self.retain.shape)} do not fit together")
        if not bool(self.forget.isfinite().all() and self.retain.isfinite().all()) or not math.isfinite(self.threshold):
            raise ValueError("directions or a threshold are not finite")


def rotated(states: Tensor, forget: Tensor, retain: Tensor, threshold: float, angle: float) -> Tensor:
    """Turn states towards h - (I - Q Q^T) V V^T h, by at most an angle, on the sphere of their length.

    Args:
        states: h: (..., hidden), float32 or better.
        forget: V: (hidden, k), orthonormal, in the same dtype.
        retain: Q: (hidden, q), orthonormal, in the same dtype.
        threshold: tau.
        angle: In radians, at least 0.

    Returns:
        States of the same shape and the same lengths; those with |Q^T h| / |h| of tau or more, and those without any
        part to be turned out, are what they were.
    """
    lengths = states.norm(dim=-1, keepdim=True)
    along = (states @ forget) @ forget.T
    target = states - along + (along @ retain) @ retain.T
    # The target in the plane of h and itself: so much along h, and the rest at a right angle to it.
    unit = states / lengths.clamp(min=torch.finfo(states.dtype).tiny)
    same = (target * unit).sum(-1, keepdim=True)
    across = target - same * unit
    size = across.norm(dim=-1, keepdim=True)
    full = torch.atan2(size, same)  # the angle between h and its target: (..., 1)
    turn = full.clamp(max=angle)
    turned = lengths * (turn.cos() * unit + turn.sin() * across / size.clamp(min=torch.finfo(states.dtype).tiny))
    kept = (states @ retain).norm(dim=-1, keepdim=True) >= threshold * lengths
    rounding = 10 * torch.finfo(states.dtype).eps * lengths
    return torch.where(kept | (size <= rounding), states, turned)


class RotationEdit(Edit):
    """Rotations of what enters decoder layers, before their norm, where an answer is written.

    Every state from the prompt's last token on is looked at by itself: it is turned out of the subspace V, by at most
    ``strength`` times ``angle``, unless it lies in what must stay: see :func:`rotated`. The prompt before its last
    token is not touched. The edit acts while it is attached and is never folded into weights.

    Source: R-MUSE, Li et al., arXiv 2512.17911, as far as it is known; see docs/methods/r-muse.md.

    Args:
        rotations: What is done in each layer, by its 0-based number.
        angle: The largest turn at strength 1, in degrees.
        strength: Factor on the angle, at least 0.
        metadata: Where the edit comes from.
    """

    kind = "rotations"
    acts = "A rotation acts on states"
    reads_states = True

    def __init__(
        self,
        rotations: Mapping[int, Rotation],
        angle: float,
        strength: float = 1.0,
        metadata: EditMetadata | None = None,
    ) -> None:
        super().__init__(metadata)
        for name, value in (("angle", angle), ("strength", strength)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the {name} {value} is no finite number of at least 0")
        self.rotations = dict(sorted(rotations.items()))
        self.angle, self.strength = float(angle), float(strength)

    def attach(self, model: PreTrainedModel) -> Attachment:
        """Turn states by hooks, in float32 or better and rounded once to the model's dtype.

        Works on quantised and offloaded models too. At strength 0 nothing is hooked.

        Raises:
            UserError: The edit is for another model, or the model reads prompts in an encoder.
        """
        self.check_model(model)
        if self.does_nothing:
            return Hooks([])
        prompts = observe_prompts(model)
        layers = decoder_layers(model)
        radians = math.radians(self.angle * self.strength)
        taps = [
            prompts.tap(InputHook(layers[number], number, _Turn(prompts, rotation, radians)), always=True)
            for number, rotation in self.rotations.items()
        ]
        return Hooks(taps)

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that this edit is not for.

        Raises:
            UserError: It lacks one of the layers, or has another hidden width.
        """
        self.check_layers(model, {number: len(one.forget) for number, one in self.rotations.items()})

    def scaled(self, strength: float, metadata: EditMetadata | None = None) -> RotationEdit:
        """The same rotations with the largest angle times ``strength``; 0 leaves the model as it is, bit for bit."""
        return RotationEdit(self.rotations, self.angle, self.strength * strength, metadata or self.metadata)

    @property
    def does_nothing(self) -> bool:
        """Whether no state is turned."""
        acting = any(one.threshold > 0 and bool(one.forget.any()) for one in self.rotations.values())
        return not (self.angle and self.strength and acting)

    def describe(self) -> list[LayerSummary]:
        """The largest angle of each layer."""
        angle = min(self.angle * self.strength, 180.0)
        return [LayerSummary.of_rotation(f"layer.{number}", angle) for number in self.rotations]

    def tensors(self) -> dict[str, Tensor]:
        """``angle``, ``strength``, and ``layer.<n>.forget``, ``.retain`` and ``.threshold`` for every layer."""
        stored = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("angle", "strength")}
        for number, one in self.rotations.items():
            stored |= {
                f"layer.{number}.forget": one.forget,
                f"layer.{number}.retain": one.retain,
                f"layer.{number}.threshold": torch.tensor(one.threshold, dtype=torch.float64),
            }
        return stored

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> RotationEdit:
        """Read the names written by :meth:`tensors`."""
        values = Values(tensors)
        angle, strength = values.number("angle"), values.number("strength")
        rotations = {
            key.layer: Rotation(
                values.take(f"layer.{key.layer}.forget", 2, none=True),
                values.take(f"layer.{key.layer}.retain", 2, none=True),
                values.number(f"layer.{key.layer}.threshold"),
            )
            for key in values.keys("threshold")
        }
        values.finish()
        return cls(rotations, angle, strength, metadata)


class _Turn:
    """Turns what enters one layer; the subspaces follow it to its device."""

    def __init__(self, prompts: Prompts, rotation: Rotation, angle: float) -> None:
        self._prompts, self._angle = prompts, angle
        self._forget, self._retain, self._threshold = rotation.forget, rotation.retain, rotation.threshold

    def __call__(self, states: Tensor) -> Tensor:
        span = self._prompts.span
        span.check(states)
        if self._forget.device != states.device:
            with torch.inference_mode(False):  # an inference tensor kept here would break later gradients
                self._forget, self._retain = self._forget.to(states.device), self._retain.to(states.device)
        exact = states.to(torch.promote_types(states.dtype, torch.float32))
        turned = rotated(exact, self._forget.to(exact), self._retain.to(exact), self._threshold, self._angle)
        if span.last is None:
            return turned.to(states.dtype)
        columns = torch.arange(states.shape[1], device=states.device)
        writing = columns >= span.last.to(states.device)[:, None]
        return torch.where(writing[..., None], turned.to(states.dtype), states)
