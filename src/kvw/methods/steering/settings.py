"""Settings of steering, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from kvw.errors import UserError
from kvw.settings import Count, Finite, NotNegative, Settings, Share, ShareAboveZero

AUTHORS_SKIPPED = 17
AUTHORS_DEPTH = 32
Where = Literal["prompt", "last"]
Source = Literal["neutral", "forget"]
PRESETS: dict[str, dict[str, float]] = {
    "llava": {"ratio": 0.3, "ridge": 0.1, "strength": 0.25},
    "qwen2_5_vl": {"ratio": 0.4, "ridge": 1.0, "strength": 0.27},
}
"""What the authors' code has for each of its families, by model type. Their strengths differ by type of task (0.25,
0.35 and 0.25; 0.30, 0.26 and 0.27); here the middle one of three serves all."""
PAPER: dict[str, Any] = {"epsilon": 16 / 255, "steps": 10, "parity": True}
"""What it has for both."""


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
        pairs: What the direction is made from: ``neutral`` for the pairs that come with kvw, everyday questions that
            the model answers or is told not to know, with drawn pictures where it takes images; ``forget`` for the
            forget set's answers against refusals.
        preset: ``paper`` for the numbers of the authors' code for the model's family (LLaVA, Qwen2.5-VL), its
            perturbation of pictures, and ``parity``. Settings that are given beside it stay as given.
        where: ``prompt`` shifts all positions of the prompt, ``last`` only its last one.
        decoding: Whether generated positions are shifted, too.
        epsilon: How far pixels of the recall side may be moved, from 0 to 1; 0 leaves the images as they are. 16/255 in
            the paper, for pairs of questions that the model refuses or answers. Pairs without pictures stay as they
            are.
        step: Step size of the projected gradient descent, in the unit of epsilon.
        steps: Steps of the projected gradient descent.
        random_start: Whether it starts at a random point within epsilon.
        target: What the perturbed image should make the model say.
        seed: Draws refusals (with ``pairs=forget``) and random starts.
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
    pairs: Source = "neutral"
    preset: Literal["paper"] | None = None
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

    def for_model(self, model_type: str) -> SteeringSettings:
        """The settings with those of the preset in place of defaults.

        Args:
            model_type: Of the model's configuration.

        Raises:
            UserError: The authors have no numbers for this family.
        """
        if self.preset is None:
            return self
        if model_type not in PRESETS:
            raise UserError(
                "The paper has settings for two families only.",
                found=model_type,
                do=f"leave out preset, or use one of: {', '.join(PRESETS)}",
            )
        defaults = {field.name: field.default for field in fields(self)}
        wanted: dict[str, Any] = {**PRESETS[model_type], **PAPER}
        left: dict[str, Any] = {name: value for name, value in wanted.items() if getattr(self, name) == defaults[name]}
        return replace(self, **left)

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
            raise UserError(
                "No layer is left to steer.",
                found=f"{first}:{last} without {sorted(skipped)}",
                do="give other layers, or skip fewer",
            )
        return layers
