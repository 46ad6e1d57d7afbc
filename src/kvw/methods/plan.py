"""What a method says of itself in a dry run: how long it would take, and what it would hold in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from kvw.data import Prepared
from kvw.methods.subspace.memory import MemoryPlan


class MethodPlan(BaseModel):
    """What a method would take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: dict[str, float]
    """By stage; upper bounds, since the largest batch was timed."""
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
