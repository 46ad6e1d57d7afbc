"""What ``kvw inspect activations`` found, as data."""

from __future__ import annotations

from kvw.strict import Strict


class ReadExample(Strict):
    """One example as the model reads it, token by token."""

    tokens: list[str]
    classes: list[str]
    """``image``, ``template``, ``question`` or ``answer``, see :data:`kvw.measuring.token_coefficients.TokenClass`."""
    mean: dict[int, list[float]]
    """The mean of abs(m) over the knowledge vectors at every token, by layer."""
    weighted: dict[int, list[float]]
    """The same, weighted by the accessor of each vector."""


class LayerRatio(Strict):
    """How much larger coefficients are where an answer token is predicted than elsewhere, over all examples shown."""

    layer: int
    mean: float | None
    """None if there is nothing elsewhere."""
    weighted: float | None
    """The same of the weighted ones; None also if no vector of the layer has an accessor above 0."""


class Activations(Strict):
    """What was looked at."""

    model: str
    data: str
    """Name of the file that the accessor was measured on."""
    questions: int
    retain: str
    """Name of the file that it is held against; empty if that is the mean of each layer."""
    examples: list[ReadExample]
    ratios: list[LayerRatio]
