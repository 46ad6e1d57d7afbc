"""Settings of the methods, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvw.errors import UserError
from kvw.measuring.sources import Positions
from kvw.settings import Count, Positive, Settings

Schedule = Literal["progressive", "one-shot"]


@dataclass(frozen=True)
class KvwSettings(Settings):
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
    """

    gamma: Positive = 0.02
    layers: tuple[int, int] | None = None
    update_every: Count = 1
    epochs: Count = 1
    seed: int | None = 0
    retain_contrast: bool = True
    positions: Positions = "answer"
    schedule: Schedule = "progressive"
    min_tokens: Count = 16
    parity: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parity and self.schedule == "one-shot":
            raise UserError(
                "Parity reproduces the authors' progressive loop; it has no one-shot form.",
                do="drop one of parity and schedule one-shot",
            )

    def steps(self, batches: int) -> int:
        """How many steps a forget set of ``batches`` batches makes; no step spans two epochs."""
        return -(-batches // self.update_every) * self.epochs
