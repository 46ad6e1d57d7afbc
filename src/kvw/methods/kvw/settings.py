"""Settings of the methods, checked before anything heavy is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from kvw.errors import UserError
from kvw.measuring.sources import Positions

Schedule = Literal["progressive", "one-shot"]


@dataclass(frozen=True)
class KvwSettings:
    """Knowledge Vector Weakening: scale single knowledge vectors; with the defaults of the paper's code.

    Args:
        gamma: Strength; a step multiplies knowledge vector i by exp(-gamma A_i).
        layers: First and last decoder layer, 0-based, both included; None for 1 .. L - 3 of L layers.
        update_every: Forget batches (examples, on the command line) per step.
        epochs: Times the forget set is gone through.
        seed: Shuffles the forget set anew for each epoch, since files come in the order of subjects; None keeps the
            order. Only the progressive schedule depends on it.
        retain_contrast: Off: the ablation without the retain set, see :func:`accessor`.
        positions: ``answer`` or ``all`` (the ablation).
        schedule: ``progressive`` measures C_f at every step on the model as weakened so far; ``one-shot`` measures it
            once over the whole forget set on the original model and applies exp(-gamma n A) for n steps.
        min_tokens: Experts of a mixture that saw fewer answer-predicting positions than this in either set are left
            alone: a mean over a few tokens says little. (In the progressive schedule, an expert is left alone until
            the forget set has brought it that many.)
        parity: Multiply rounded gates into rounded weights at every step, as the authors' code does.

    Raises:
        UserError: A value makes no sense.
    """

    gamma: float = 0.02
    layers: tuple[int, int] | None = None
    update_every: int = 1
    epochs: int = 1
    seed: int | None = 0
    retain_contrast: bool = True
    positions: Positions = "answer"
    schedule: Schedule = "progressive"
    min_tokens: int = 16
    parity: bool = False

    def __post_init__(self) -> None:
        if not (self.gamma > 0 and math.isfinite(self.gamma)):
            raise UserError("gamma must be a positive number.", found=str(self.gamma), do="the paper uses 0.01 to 0.03")
        for name in ("update_every", "epochs", "min_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1.", found=repr(value))
        for name, choices in (("schedule", get_args(Schedule)), ("positions", get_args(Positions))):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"There is no such {name}.", found=repr(getattr(self, name)), do=f"use one of: {', '.join(choices)}"
                )
        if self.parity and self.schedule == "one-shot":
            raise UserError(
                "Parity reproduces the authors' progressive loop; it has no one-shot form.",
                do="drop one of parity and schedule one-shot",
            )

    def steps(self, batches: int) -> int:
        """How many steps a forget set of ``batches`` batches makes; no step spans two epochs."""
        return -(-batches // self.update_every) * self.epochs
