"""Settings of RepSelect, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvw.settings import Count, Positive, Settings, ShareBelowOne

Collapse = Literal["soft", "quadratic", "hard", "none"]
Sides = Literal["both", "inputs", "outputs"]
Of = Literal["forget", "retain"]


@dataclass(frozen=True)
class RepSelectSettings(Settings):
    """RepSelect: the forget set's weight gradient, without its strongest components, is subtracted once; no training.

    Args:
        layers: First and last decoder layer whose FFNs are changed, 0-based, both included; None for all.
        collapse: What becomes of the strongest components: divided by s_i / s_min (``soft``, as in the paper), by its
            square (``quadratic``), taken out (``hard``), or left (``none``).
        sides: Whether they are collapsed in what a map reads (``inputs``), in what it writes (``outputs``), or in both.
        of: Whose gradient says what the strongest components are; the paper takes that of the forget set.
        components: How many at most; 512 in the paper.
        floor: Components weaker than this share of the strongest one are no components: they are rounding.
        size: Norm of the whole change at share 1, as a share of the norm of the weights that are changed.
        rate: Instead of ``size``: what the filtered gradient is multiplied by; the authors' learning rate (0.05) times
            their epochs.
        batch_size: Examples per backward pass; it changes time and memory, and the result by rounding alone.
    """

    layers: tuple[int, int] | None = None
    collapse: Collapse = "soft"
    sides: Sides = "both"
    of: Of = "forget"
    components: Count = 512
    floor: ShareBelowOne = 0.01
    size: Positive = 0.005
    rate: Positive | None = None
    batch_size: Count = 4
