"""Which examples go into which optimiser step: a function of nothing but the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kvw.training.objective import Side


@dataclass(frozen=True)
class Plan:
    """The order of the examples.

    Every epoch goes through the leading set once, in an order of its own; no step spans two epochs. The other set is
    gone through in its own order, and in a new one when it is used up; a step takes as many of it as a full step takes
    of the leading set. Nothing is remembered between steps, so training can go on anywhere.

    Args:
        counts: Examples in the forget set and in the retain set; a set that is not used has 0.
        size: Examples of a set in a full step.
        epochs: Times through the leading set: the forget set, or the retain set if there is no other.
        seed: Seed of all orders.
    """

    counts: dict[Side, int]
    size: int
    epochs: int
    seed: int

    @property
    def leading(self) -> Side:
        """The set that an epoch goes through once."""
        return "forget" if self.counts["forget"] else "retain"

    @property
    def steps_per_epoch(self) -> int:
        """Steps for once through the leading set; the last may be short."""
        return -(-self.counts[self.leading] // self.size)

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.steps_per_epoch * self.epochs

    def examples(self, step: int, side: Side) -> tuple[int, ...]:
        """Positions in a set of the examples of a step, 0-based; none if the set is not used."""
        count = self.counts[side]
        if side == self.leading:
            epoch, within = divmod(step, self.steps_per_epoch)
            return tuple(self._order(side, epoch)[within * self.size : (within + 1) * self.size])
        if not count:
            return ()
        first = step * self.size
        orders = {epoch: self._order(side, epoch) for epoch in range(first // count, (first + self.size) // count + 1)}
        return tuple(orders[place // count][place % count] for place in range(first, first + self.size))

    def _order(self, side: Side, epoch: int) -> Sequence[int]:
        # A text seeds by its SHA-512, the same on every machine and release.
        return random.Random(f"{self.seed} {side} {epoch}").sample(range(self.counts[side]), self.counts[side])
