"""Settings of conditional KVW, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.steering.settings import SteeringSettings
from kvw.settings import Finite, Settings


@dataclass(frozen=True)
class ConditionalKvwSettings(Settings):
    """Conditional KVW: the gates of one-shot KVW, which act only on samples that a filter picks by their prompt.

    Args:
        gamma: Strength of the gates, as of one-shot KVW.
        layers: First and last decoder layer whose value matrices are weakened, 0-based, both included. Who is affected
            is decided by what enters the first of them. None for the last two thirds of the layers: what enters early
            layers says little of who is asked about.
        threshold: A sample is affected if its gate a . h is above this; the gate is fitted to be 1 on the forget set.
        ratio: Share of the hidden width that the null space of the retain set takes, as in steering.
        energy: Instead of ``ratio``.
        ridge: Regularisation of the fit.
        min_tokens: As in KVW.
    """

    gamma: float = 0.02
    layers: tuple[int, int] | None = None
    threshold: Finite = 0.5
    ratio: float = 0.3
    energy: float | None = None
    ridge: float = 0.1
    min_tokens: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weakening((0, 0))
        self.gate()

    def chosen_layers(self, depth: int) -> tuple[int, int]:
        """First and last layer of the gates in a decoder of ``depth`` layers.

        Raises:
            UserError: The range does not fit.
        """
        layers = SteeringSettings(layers=self.layers or (depth // 3, depth - 1)).chosen_layers(depth)
        return layers[0], layers[-1]

    def weakening(self, layers: tuple[int, int]) -> KvwSettings:
        """What KVW is told, for these layers."""
        return KvwSettings(gamma=self.gamma, layers=layers, schedule="one-shot", min_tokens=self.min_tokens)

    def gate(self) -> SteeringSettings:
        """How the filter is fitted."""
        return SteeringSettings(ratio=self.ratio, energy=self.energy, ridge=self.ridge)
