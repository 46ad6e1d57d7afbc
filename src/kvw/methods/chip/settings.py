"""Settings of CHIP, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvw.settings import Count, Settings, Share, ShareAboveZero

AUTHORS_LAYERS = 6
AUTHORS_DEPTH = 28


@dataclass(frozen=True)
class ChipSettings(Settings):
    """CHIP: what sets forget facts apart from their siblings is projected out of what FFN maps write; no training.

    Args:
        layers: First and last decoder layer whose FFNs are changed, 0-based, both included; None for the last ones, as
            many of all as the authors' 6 of 28.
        share: Share of the outputs of each map that is chosen: those that the forget set drives more than the retain
            set.
        energy: Share of the energy of all directions that is projected out.
        image_weight: alpha: weight of the mean over image positions beside that over all others.
        by: Whether each fact of the forget set gives a direction (``fact``) or each subject.
        batch_size: Examples per forward.
    """

    layers: tuple[int, int] | None = None
    share: ShareAboveZero = 0.1
    energy: ShareAboveZero = 0.95
    image_weight: Share = 0.3
    by: Literal["fact", "subject"] = "fact"
    batch_size: Count = 4

    def chosen_layers(self, depth: int) -> tuple[int, int]:
        """First and last layer in a decoder of ``depth`` layers."""
        count = max(1, round(AUTHORS_LAYERS / AUTHORS_DEPTH * depth))
        return (depth - count, depth - 1) if self.layers is None else self.layers
