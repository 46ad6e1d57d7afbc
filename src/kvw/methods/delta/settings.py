"""Settings of delta-unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvw.settings import Positive, Settings


@dataclass(frozen=True)
class DeltaSettings(Settings):
    """Delta-unlearning: a small model is trained to say less, and a frozen model's logits get what that changes.

    Args:
        offset: Checkpoint of the small model; its tokenizer must be that of the model.
        objective: What is minimised through both models, with the defaults of the method of this name.
        alpha: Factor of the difference, while it is trained and afterwards.
    """

    offset: str = ""
    objective: Literal["npo", "ga", "grad-diff", "kl", "idk-nll"] = "npo"
    alpha: Positive = 1.0
