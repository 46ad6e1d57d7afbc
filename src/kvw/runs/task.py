"""A request that can be solved."""

from __future__ import annotations

from dataclasses import dataclass

from kvw.measuring.in_memory import InMemory
from kvw.methods.earlier import Earlier
from kvw.runs.terms import Sets, Terms


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model in memory, what it is to forget and to keep, and on which terms.

    Args:
        request: The terms.
        loaded: The model, without any edit.
        data: The examples.
        earlier: What was kept of earlier requests, for methods that take it.
    """

    request: Terms
    loaded: InMemory
    data: Sets
    earlier: tuple[Earlier, ...] = ()
