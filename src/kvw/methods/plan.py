"""What a method says of itself in a dry run: how long it would take, and what it would hold in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvw.data import Prepared
from kvw.strict import Strict


class MemoryPlan(Strict):
    """Bytes beyond the model and a batch. Moments and the solve lie where the layers compute, the rest on the CPU."""

    path: str
    """Which way is taken, in words."""
    passes: int
    """How often each set runs through the model."""
    largest_moment: int
    """One second moment of the widest value matrix, float32; or the rows that stand for it, in the model's dtype."""
    moments: int
    """All second moments of a pass, with their folds."""
    forget_tokens: int
    """Forget coefficients of a pass, in the model's dtype."""
    null_tokens: int
    """Retain coefficients of a pass that the threshold is measured with, in the model's dtype."""
    states: int
    """Hidden states of both sets that wait for the next layer, in the model's dtype; 0 in passes of the whole model."""
    arguments: int
    """At most: what layers are called with beside states, and weights of tokens. That of the largest batch of each set,
    times batches; 0 in passes of the whole model."""
    largest_solve: int
    """C, S and its factor of the widest value matrix, float32; with rows what Woodbury's identity takes, float64."""
    largest_solve_again: int
    """The same in float64, which is what it takes where float32 is not good enough."""

    @property
    def largest(self) -> int:
        """The most of it at one time, as long as float32 is good enough."""
        waiting = self.states + self.arguments
        return waiting + self.moments + self.forget_tokens + self.null_tokens + self.largest_solve


@dataclass(frozen=True)
class Waiting:
    """Bytes that wait for the next layer: see :class:`MemoryPlan`."""

    states: int
    arguments: int


class MethodPlan(Strict):
    """What a method would take."""

    seconds: dict[str, float]
    """Seconds by stage. They are upper bounds, since the largest batch was timed."""
    memory: MemoryPlan | None = None


def largest_batch(prepared: Sequence[Prepared], budget: int) -> list[Prepared]:
    """The longest examples, with equal image counts, that a budget of padded tokens takes."""
    longest = max(prepared, key=lambda item: item.length)
    alike = sorted(
        (item for item in prepared if item.image_count == longest.image_count),
        key=lambda item: item.length,
        reverse=True,
    )
    return alike[: max(1, budget // longest.length)]


def timed(work: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
