"""Settings of training, checked before anything heavy is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from kvw.errors import UserError
from kvw.settings import AtLeastOne, Count, NotNegative, Positive, Settings, Share, ShareBelowOne

Part = Literal["language", "vision", "projector"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["as loaded", "bf16"]
PARTS = get_args(Part)
ADAPTERS = "lora"
"""Table of settings: adapters."""


@dataclass(frozen=True)
class LoraSettings(Settings):
    """Low-rank adapters, W' = W + (alpha / rank) B A; the defaults are those the KVW paper plants its people with.

    Args:
        rank: Rows of A and columns of B.
        alpha: Scale of the product.
        dropout: Share of inputs dropped before A while training.
    """

    rank: Count = 16
    alpha: Positive = 16
    dropout: ShareBelowOne = 0.05


@dataclass(frozen=True)
class TrainingSettings(Settings):
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
        keep_zeros: Whether zeros of a pruned model stay zero (SAU, rebuilt from its abstract): ``on``, ``off``, or
            ``auto``: those of matrices in which a tenth are zero or more. Under LoRA they are put back at the merge.
        redistribution: Who gets what the kept zeros would have moved in a step: the other weights of the same ``row``,
            those of the ``tensor``, or nobody (``off``).
        importance: What shares follow: the ``gradient``'s size, its square (``fisher``), or a weight's ``magnitude``.
        largest_step: How many times further a weight may move by what it is given.
    """

    learning_rate: Positive = 1e-5
    epochs: Count = 1
    batch_size: Count = 4
    accumulation: Count = 1
    schedule: Schedule = "linear"
    warm_up: Share = 0.0
    weight_decay: NotNegative = 0.0
    clip: Positive | None = 1.0
    precision: Precision = "as loaded"
    gradient_checkpointing: bool = False
    parts: tuple[Part, ...] = ("language",)
    lora: LoraSettings | None = None
    seed: int = 0
    save_every: Count = 100
    retain_ceiling: float | None = None
    forget_floor: float | None = None
    keep_zeros: Literal["auto", "on", "off"] = "auto"
    redistribution: Literal["row", "tensor", "off"] = "row"
    importance: Literal["gradient", "fisher", "magnitude"] = "gradient"
    largest_step: AtLeastOne = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.parts, (list, tuple)) or not self.parts:
            raise UserError(
                "parts must name each part to train once.",
                found=repr(self.parts),
                do="leave repeated and empty ones out",
            )
        super().__post_init__()
        if len(set(self.parts)) != len(self.parts):
            raise UserError(
                "parts must name each part to train once.",
                found=repr(self.parts),
                do="leave repeated and empty ones out",
            )


YOUNGER = ("keep_zeros", "redistribution", "importance", "largest_step")
"""Settings that came after trainings whose digest is kept somewhere."""


def identified(settings: TrainingSettings) -> dict[str, Any]:
    """The settings for a digest, by name; younger ones are left out at their defaults, as if they were not there."""
    defaults = TrainingSettings()
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in YOUNGER or value != getattr(defaults, name)
    }


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
