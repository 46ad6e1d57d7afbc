"""Settings of training, checked before anything heavy is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kvw.errors import UserError

Part = Literal["language", "vision", "projector"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["as loaded", "bf16"]
PARTS = get_args(Part)
ADAPTERS = "lora"
"""Table of settings: adapters."""


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters, W' = W + (alpha / rank) B A; the defaults are those the KVW paper plants its people with.

    Args:
        rank: Rows of A and columns of B.
        alpha: Scale of the product.
        dropout: Share of inputs dropped before A while training.

    Raises:
        UserError: A value makes no sense.
    """

    rank: int = 16
    alpha: float = 16
    dropout: float = 0.05

    def __post_init__(self) -> None:
        whole("rank", self.rank)
        positive("alpha", self.alpha)
        if not 0 <= self.dropout < 1:
            raise UserError("dropout must be at least 0 and less than 1.", found=repr(self.dropout))


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. An optimiser step takes ``batch_size * accumulation`` examples of the forget set and as many of
    the retain set; how they are split over forwards does not change the result.

    Args:
        learning_rate: AdamW's highest.
        epochs: Times through the forget set; the retain set is gone through in its own order, again and again.
        batch_size: Examples per forward.
        accumulation: Forwards per step and set.
        schedule: What the learning rate does after the warm-up: stay, or fall to zero along a line or half a cosine.
        warm_up: Share of the steps in which it rises from zero.
        weight_decay: AdamW's.
        clip: Highest norm of the gradient over everything trained; None does not clip.
        precision: ``as loaded`` computes in the model's dtype; ``bf16`` computes in bfloat16 (autocast) and keeps what
            is trained in float32 meanwhile.
        gradient_checkpointing: Compute activations again in the backward pass, to save memory.
        parts: What to train: ``language``, ``vision`` (the tower), ``projector``.
        lora: Train adapters on the linear maps of these parts (the output layer excepted) instead of all their weights.
        seed: Seed of the order of the examples, of dropout and of the adapters' first weights.
        save_every: Steps between two saved states, if there is a place to save them.
        retain_ceiling: Stop before a step whose retain examples have a mean negative log-likelihood per answer token
            of this or more; costs a forward over them at every step.
        forget_floor: Stop before a step whose forget loss, in the method's own terms, is this or less.

    Raises:
        UserError: A value makes no sense.
    """

    learning_rate: float = 1e-5
    epochs: int = 1
    batch_size: int = 4
    accumulation: int = 1
    schedule: Schedule = "linear"
    warm_up: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = 1.0
    precision: Precision = "as loaded"
    gradient_checkpointing: bool = False
    parts: tuple[Part, ...] = ("language",)
    lora: LoraSettings | None = None
    seed: int = 0
    save_every: int = 100
    retain_ceiling: float | None = None
    forget_floor: float | None = None

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)
        for name in ("epochs", "batch_size", "accumulation", "save_every"):
            whole(name, getattr(self, name))
        chosen("schedule", self.schedule, get_args(Schedule))
        chosen("precision", self.precision, get_args(Precision))
        not_negative("warm_up", self.warm_up)
        if self.warm_up > 1:
            raise UserError("warm_up is a share of the steps, from 0 to 1.", found=repr(self.warm_up))
        not_negative("weight_decay", self.weight_decay)
        flag("gradient_checkpointing", self.gradient_checkpointing)
        if self.clip is not None:
            positive("clip", self.clip)
        if not isinstance(self.parts, (list, tuple)) or not self.parts:
            raise UserError("parts must name each part to train once.", found=repr(self.parts))
        for part in self.parts:
            chosen("part", part, PARTS)
        if len(set(self.parts)) != len(self.parts):
            raise UserError("parts must name each part to train once.", found=repr(self.parts))


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The learning rate of a step.

    Args:
        settings: Highest rate, warm-up and schedule.
        step: 0-based.
        steps: How many there are.
    """
    warm_up = round(settings.warm_up * steps)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    fall = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return settings.learning_rate * fall[settings.schedule]


def whole(name: str, value: Any) -> None:
    """Refuse anything but a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1.", found=repr(value))


def flag(name: str, value: Any) -> None:
    """Refuse anything but True and False; a text like "False" would count as true."""
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False.", found=repr(value))


def positive(name: str, value: Any) -> None:
    """Refuse anything but a finite number above 0."""
    if not (isinstance(value, int | float) and value > 0 and math.isfinite(value)):
        raise UserError(f"{name} must be a positive number.", found=repr(value))


def not_negative(name: str, value: Any) -> None:
    """Refuse anything but a finite number of at least 0."""
    if not (isinstance(value, int | float) and value >= 0 and math.isfinite(value)):
        raise UserError(f"{name} must be a number of at least 0.", found=repr(value))


def chosen(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse anything that is not among the choices."""
    if value not in choices:
        raise UserError(f"There is no such {name}.", found=repr(value), do=f"use one of: {', '.join(choices)}")
