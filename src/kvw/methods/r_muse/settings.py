"""Settings of R-MUSE, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from kvw.methods.steering.settings import SteeringSettings
from kvw.settings import Count, Finite, NotNegative, Settings, Share, ShareAboveZero


@dataclass(frozen=True)
class RMuseSettings(Settings):
    """R-MUSE: states are turned out of a forget subspace as an answer is written, unless the retain set spans them.

    Args:
        layers: First and last decoder layer whose input is turned, 0-based, both included; None for 1 to L - 1 of L
            layers.
        skipped: Layers within that range that are left out.
        angle: theta_tar in degrees: how far a state is turned at most.
        energy: Share of the energy of the differences between answers and refusals that the forget subspace holds;
            0.8 in the paper.
        standardised: Whether each dimension of the differences is divided by its standard deviation before the
            subspace is found, as the paper does.
        retain_energy: Share of the retain set's energy that the retain subspace holds.
        rank: The most directions of either subspace.
        threshold: tau: states with |P_r h| / |h| of this or more are not turned. None measures it on every fifth
            retain example, held out of the subspace meanwhile.
        spared: Share of these held-out states that the measured threshold leaves alone.
        tokens: How many states of each retain example are read, evenly spread over the positions that predict its
            answer.
        seed: Draws the refusals.
    """

    layers: tuple[int, int] | None = None
    skipped: tuple[int, ...] = ()
    angle: NotNegative = 10.0
    energy: ShareAboveZero = 0.8
    standardised: bool = True
    retain_energy: ShareAboveZero = 0.95
    rank: Count = 64
    threshold: Finite | None = None
    spared: Share = 0.9
    tokens: Count = 4
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "skipped", tuple(self.skipped))
        super().__post_init__()

    def chosen_layers(self, depth: int) -> list[int]:
        """The layers in a decoder of ``depth`` layers, ascending.

        Raises:
            UserError: The range does not fit, or nothing is left of it.
        """
        return SteeringSettings(layers=self.layers, skipped=self.skipped).chosen_layers(depth)
