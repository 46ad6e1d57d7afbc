"""Settings of LUNAR, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kvw.errors import UserError
from kvw.measuring.sources import Sources
from kvw.settings import Index, Positive, Settings, Share

AUTHORS_LAYER = 22
AUTHORS_DEPTH = 32
Positions = Literal["prompt", "answer"]


@dataclass(frozen=True)
class LunarSettings(Settings):
    """LUNAR as a ridge solve: one value matrix sends forget questions where refused questions are; no training.

    Args:
        layer: The layer of the value matrix, 0-based, not the last one. None: at the depth of the authors' layer 22 of
            32.
        distance: c: forget states are moved by this many times the way from them to refused ones; 2 in the authors'
            code.
        mu: Price of forget output that is not moved, in units of retain output that is; 1 weighs both as the authors'
            loss does.
        shrinkage: rho in S = (1 - rho) C + rho diag(C), between 0 and 1.
        positions: Which positions of the forget set are moved: the last one of the prompt (``prompt``), as the authors
            do, or all that predict an answer token (``answer``).
        sources: Which positions of the retain set count how much.
    """

    layer: Index | None = None
    distance: Positive = 2.0
    mu: Positive = 1.0
    shrinkage: Share = 0.1
    positions: Positions = "prompt"
    sources: Sources = field(default_factory=Sources)

    def chosen_layer(self, depth: int) -> int:
        """The layer in a decoder of ``depth`` layers.

        Raises:
            UserError: The decoder has no such layer, or none after it.
        """
        layer = min(round(AUTHORS_LAYER / AUTHORS_DEPTH * depth), depth - 2) if self.layer is None else self.layer
        if not 0 <= layer < depth - 1:
            raise UserError(
                "LUNAR needs a layer with another one after it, where its output is read.",
                found=f"layer {layer} of {depth}",
                do=f"give a layer from 0 to {depth - 2}",
            )
        return layer
