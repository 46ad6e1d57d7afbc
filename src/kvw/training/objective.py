"""What a method minimises, in a form that the loop can add up over forwards, examples and processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data.batches import Prepared

Side = Literal["forget", "retain"]
Unit = Literal["token", "example"]
Sets = Mapping[Side, Sequence[Prepared]]


@dataclass(frozen=True)
class Rows:
    """Some examples of one set, as a batch.

    Args:
        indices: Their positions in the set.
        batch: What ``answer_batch`` makes, on the model's device, ``labels`` included.
    """

    indices: tuple[int, ...]
    batch: dict[str, Tensor]


@dataclass(frozen=True)
class Term:
    """The loss on one set: the mean of something over answer tokens or over examples.

    The loop divides by the number of units in the whole optimiser step. So the loss must be a plain sum, and neither
    the batch size nor the number of processes changes the result.

    Args:
        loss: The sum over the units of the rows, a scalar.
        per: What it is a sum over.
        weight: Factor of the mean. A set of weight 0 is not run.
    """

    loss: Callable[[PreTrainedModel, Rows], Tensor]
    per: Unit = "token"
    weight: float = 1.0


@dataclass(frozen=True)
class Pass:
    """One optimiser update.

    Args:
        sides: The sets whose losses are added.
        masked: Whether the objective's masks apply.
    """

    sides: tuple[Side, ...]
    masked: bool = True


@dataclass(frozen=True)
class Objective:
    """What is minimised: the weighted sum of the terms.

    Args:
        forget: Loss on the forget set; None if the method does not use it.
        retain: Loss on the retain set; None if the method does not use it.
        examples: Stand in for the forget set (refusals in place of its answers).
        masks: For each trained parameter a boolean tensor of its shape; where it is False, nothing changes, whatever
            the optimiser remembers or decays. A parameter that is left out is trained everywhere.
        steps: What becomes of the steps of some trained parameters, whatever the optimiser remembers or decays: each
            maps what a parameter is moved by to what it is moved by instead, both of its shape.
        passes: The updates of a step; one with both sets, unless a paper's code does otherwise.
        before_step: Called before the losses of each step with the positions of its examples in each set, for losses
            that are no plain sum: what these depend on is measured here. Each process calls it with all examples.
        pairs: For each forget example the position of the retain example that is run with it, in place of the retain
            set's own order; empty for that order.
        active: Called before each epoch but the first, with its number (0-based): gives the positions of the forget
            examples that are trained in it. None trains them all. Each process calls it, and it must answer them alike.
        beside: What a step changes besides the trained parameters, by name (another network and what its optimiser
            remembers). A saved state holds it, and a training that is gone on with finds it filled in.
        finish: Called with the trained parameters after the last step.
    """

    forget: Term | None
    retain: Term | None
    examples: Sequence[Prepared] | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    steps: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    passes: tuple[Pass, ...] = (Pass(("forget", "retain")),)
    before_step: Callable[[Mapping[Side, Sequence[int]]], None] | None = None
    pairs: Sequence[int] = ()
    active: Callable[[int], Sequence[int]] | None = None
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    finish: Callable[[Mapping[str, nn.Parameter]], None] | None = None

    def term(self, side: Side) -> Term | None:
        """The loss on a set; None if the set is not to be run."""
        term = self.forget if side == "forget" else self.retain
        return term if term is not None and term.weight else None
