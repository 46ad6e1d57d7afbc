"""What was measured, as files."""

from __future__ import annotations

from typing import Any

from kvw.strict import Strict


class StageCost(Strict):
    """A stage of a method."""

    name: str
    seconds: float
    """Wall-clock time; median over the repeats."""
    cpu_seconds: float
    """What the threads of the process computed; median over the repeats."""
    flops: int
    """Floating-point operations as torch counts them: a multiplication and an addition are two."""


class CostRow(Strict):
    """What one method costs, measured in a process of its own."""

    label: str
    method: str
    settings: dict[str, Any]
    stages: list[StageCost]
    forward_seconds: float
    """A plain forward pass over the same examples in the same process, right before: it tells how fast the machine was
    at the time. Median over the repeats."""
    forward_cpu_seconds: float
    """The same in computing time of the process."""
    tokens: int
    """Positions that entered the text decoder, every pass counted."""
    matrix_flops: int
    """2 P D of all its forward passes: twice the weights of each linear map and convolution of the model, times the
    positions that it sees. Attention, backward passes and adapters come on top."""
    weights_bytes: int
    """Parameters and buffers of the loaded model."""
    rest_bytes: int
    """Peak memory beyond what was in use when the method began."""
    joules: float | None
    """Energy as the device counts it; None where it does not."""
    error: str = ""
    """Why it could not be measured; the numbers are then 0."""

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def flops(self) -> int:
        """Floating-point operations of all stages."""
        return sum(stage.flops for stage in self.stages)


class Costs(Strict):
    """A finished comparison."""

    title: str
    recipe: dict[str, Any]
    device: str
    model: str
    parameters: int
    tokens_per_example: int
    image_tokens: int
    versions: dict[str, str]
    rows: list[CostRow]
