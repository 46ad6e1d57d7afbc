"""How many examples go through the model at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, Self, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from kvw.errors import UserError
from kvw.measuring.fingerprint import digest
from kvw.processes import current

Item = TypeVar("Item")
Work = TypeVar("Work")
Result = TypeVar("Result")

TOKENS_ON_CPU = 4_096
TOKENS_ON_ACCELERATOR = 16_384


def run_batched(
    items: Sequence[Item],
    lengths: Sequence[int],
    run: Callable[[list[Item]], Result],
    *,
    budget: int,
) -> Iterator[tuple[list[int], Result]]:
    """Run all items in batches that fit, longest first, halving the batches when memory runs out.

    Batches hold items of similar length, so little is padded, and the first batch is the largest: what fits it
    fits all. The budget is a fixed number of tokens and not found by timing, because a batch size that depends on
    the clock would make the last digits of every result differ from run to run.

    Several processes (:func:`kvw.processes.together`) share the batches among them. They are the batches of a single
    process, unless memory runs out: a batch is then split by the process that has it.

    Args:
        items: What to run.
        lengths: Tokens of each item, images included; estimates will do.
        run: Called with the items of one batch; everything it needs is in its argument, so it can be repeated.
        budget: Padded tokens per batch at the start (batch size times longest item); at least one item goes in.

    Yields:
        The positions of the batch's items in ``items`` and what ``run`` returned for them; in the first process
        only, if there are several.

    Raises:
        UserError: Memory runs out on a single item, or the processes have different items.
    """
    processes = current()
    processes.agree({"batches": digest(list(lengths), budget)})
    waiting = sorted(range(len(items)), key=lambda index: (-lengths[index], index))
    batched = _Batched(items, lengths, run, budget)
    for _, parts in processes.scatter(batches_of(waiting, lengths, budget), batched.run):
        yield from parts


def token_budget(device: torch.device) -> int:
    """Padded tokens per batch to start with on this device."""
    return TOKENS_ON_CPU if device.type == "cpu" else TOKENS_ON_ACCELERATOR


def batches_of(waiting: list[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut items, ordered from the longest, into batches of a budget of padded tokens; at least one item goes in."""
    while waiting:
        size = max(1, budget // max(1, lengths[waiting[0]]))
        yield waiting[:size]
        waiting = waiting[size:]


class _Batched(Generic[Item, Result]):
    """Runs batches, in parts once memory has run out."""

    def __init__(
        self, items: Sequence[Item], lengths: Sequence[int], run: Callable[[list[Item]], Result], budget: int
    ) -> None:
        self._items = items
        self._lengths = lengths
        self._run = run
        self._budget = budget

    def run(self, waiting: list[int]) -> list[tuple[list[int], Result]]:
        """What became of each part of a batch, the longest items first."""
        parts = []
        while waiting:
            longest = max(1, self._lengths[waiting[0]])
            indices = waiting[: max(1, self._budget // longest)]
            outcome = _try(self._run, [self._items[index] for index in indices])
            if isinstance(outcome, MemoryError):
                if len(indices) == 1:
                    raise UserError(
                        "Memory ran out on a single example.",
                        found=f"{self._lengths[indices[0]]} tokens, images included",
                        do="use a device with more memory, a smaller data type, or smaller images",
                    ) from outcome
                self._budget = longest * (len(indices) // 2)
                clear_device_cache(garbage_collection=True)
                continue
            parts.append((indices, outcome))
            waiting = waiting[len(indices) :]
        return parts


class Divisible(Protocol):
    """Work for one forward that can be done in two halves."""

    @property
    def tokens(self) -> int:
        """How large it is, in padded tokens; an estimate will do."""

    def halves(self) -> Sequence[Self]:
        """The first and the second half; nothing if it cannot be cut."""


Piece = TypeVar("Piece", bound=Divisible)


class Halving(Generic[Piece]):
    """Runs work, in halves once memory has run out, the first half first.

    Args:
        run: Called with a piece and, if memory runs out, with its halves. What it has done before it failed counts as
            done: it must see to it that the halves do not do that again.
        refusal: The error for a piece that does not fit and cannot be cut.
    """

    def __init__(self, run: Callable[[Piece], None], refusal: Callable[[Piece], UserError]) -> None:
        self._run = run
        self._refusal = refusal
        self._most = math.inf
        """What is larger than this is cut without trying, since something like it did not fit."""

    def __call__(self, piece: Piece) -> None:
        """Run a piece.

        Raises:
            UserError: Memory runs out on something that cannot be cut.
        """
        waiting: list[Piece] = [piece]
        while waiting:
            piece = waiting.pop()
            if piece.tokens <= self._most or not piece.halves():
                failure = _try(self._run, piece)
                if failure is None:
                    continue
                if not piece.halves():
                    raise self._refusal(piece) from failure
                self._most = piece.tokens // 2
                clear_device_cache(garbage_collection=True)
            waiting.extend(reversed(piece.halves()))


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a device or on the CPU."""
    # Devices have an error of their own for it, but for Apple's, whose message accelerate knows from 1.15 on.
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or should_reduce_batch_size(error)
        or "MPS backend out of memory" in str(error)
    )


def _try(run: Callable[[Work], Result], work: Work) -> Result | MemoryError:
    # The exception is returned and not handled in place: while it is being handled its traceback keeps the
    # tensors of the failed attempt alive, and the smaller attempt would fail as well.
    try:
        return run(work)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            return MemoryError(str(error))
        raise
