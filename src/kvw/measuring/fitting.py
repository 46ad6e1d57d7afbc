"""How many examples go through the model at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from kvw.errors import UserError
from kvw.measuring.fingerprint import digest
from kvw.processes import current

Item = TypeVar("Item")
Result = TypeVar("Result")

TOKENS_ON_CPU = 4_096
TOKENS_ON_ACCELERATOR = 16_384


def run_fitted(
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

    Several processes (:func:`kvw.processes.together`) deal the batches among them. They are the batches of a single
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
    fitted = _Fitted(items, lengths, run, budget)
    for _, parts in processes.deal(batches_of(waiting, lengths, budget), fitted.run):
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


class _Fitted(Generic[Item, Result]):
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


def _try(run: Callable[[list[Item]], Result], batch: list[Item]) -> Result | MemoryError:
    # The exception is returned and not handled in place: while it is being handled its traceback keeps the
    # tensors of the failed attempt alive, and the smaller attempt would fail as well.
    try:
        return run(batch)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or should_reduce_batch_size(error):
            return MemoryError(str(error))
        raise
