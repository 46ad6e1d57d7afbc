"""Settings of steering, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvw.errors import UserError
from kvw.settings import Count, Finite, NotNegative, Settings, Share, ShareAboveZero

AUTHORS_SKIPPED = 17
AUTHORS_DEPTH = 32
Where = Literal["prompt", "last"]


@dataclass(frozen=True)
class SteeringSettings(Settings):
    """MLLMEraser: hidden states are moved while the model runs, as far as the prompt says; weights stay.

    Args:
        layers: First and last decoder layer whose input is steered, 0-based, both included; None for 1 to L - 1 of L
            layers: what enters layer 0 is one token and knows nothing of the prompt.
        skipped: Layers within that range that are left out.
        strength: t: at 1 the forget set's states are moved by the whole direction in every layer. The paper uses 0.2
            to 0.35, tuned for each task type; here one value serves all.
        ratio: Share of the hidden width that the null space of the retain set takes, the directions with the least
            energy first. 0.3 (LLaVA) and 0.4 (Qwen2.5-VL) in the paper. Directions in which the retain set has no
            energy at all belong to it in any case.
        energy: Instead of ``ratio``: the null space takes as many directions as together hold at most this share of
            the retain set's energy.
        ridge: The regularisation gamma of the closed form, in units of squared states: 0.1 (LLaVA) and 1.0 (Qwen2.5-VL)
            in the paper.
        where: ``prompt`` shifts all positions of the prompt, ``last`` only its last one.
        decoding: Whether generated positions are shifted, too.
        epsilon: How far pixels of the recall side may be moved, from 0 to 1; 0 leaves the images as they are. 16/255 in
            the paper, for pairs of questions that the model refuses or answers.
        step: Step size of the projected gradient descent, in the unit of epsilon.
        steps: Steps of the projected gradient descent.
        random_start: Whether it starts at a random point within epsilon.
        target: What the perturbed image should make the model say.
        seed: Draws refusals and random starts.
        parity: Do what the authors' code does where it differs: directions are read from block outputs while
            everything else is at block inputs, layer 17 is left out (at the same depth in models of fewer layers), and
            the null space takes exactly ``ratio`` of the width.
    """

    layers: tuple[int, int] | None = None
    skipped: tuple[int, ...] = ()
    strength: Finite = 0.25
    ratio: ShareAboveZero = 0.3
    energy: Share | None = None
    ridge: NotNegative = 0.1
    where: Where = "prompt"
    decoding: bool = False
    epsilon: Share = 0.0
    step: NotNegative = 2 / 255
    steps: Count = 100
    random_start: bool = False
    target: str = "Sure, here is the answer:"
    seed: int = 0
    parity: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "skipped", tuple(self.skipped))
        super().__post_init__()
        if not self.target.strip():
            raise UserError("target must say something.", do="give the beginning of an affirmative answer")
        if self.parity and self.energy is not None:
            raise UserError("The authors choose the null space by ratio.", do="leave out energy, or parity")

    def chosen_layers(self, depth: int) -> list[int]:
        """The layers to steer in a decoder of ``depth`` layers, ascending.

        Raises:
            UserError: The range does not fit, or nothing is left of it.
        """
        first, last = (min(1, depth - 1), depth - 1) if self.layers is None else self.layers
        if not 0 <= first <= last < depth:
            raise UserError(
                f"The layer range {first}:{last} does not fit this model.",
                found=f"layers 0 to {depth - 1}",
                do="give first and last layer, both included",
            )
        skipped = set(self.skipped)
        if self.parity:
            skipped.add(AUTHORS_SKIPPED if depth > AUTHORS_SKIPPED else round(AUTHORS_SKIPPED / AUTHORS_DEPTH * depth))
        layers = [layer for layer in range(first, last + 1) if layer not in skipped]
        if not layers:
            raise UserError("No layer is left to steer.", found=f"{first}:{last} without {sorted(skipped)}")
        return layers
