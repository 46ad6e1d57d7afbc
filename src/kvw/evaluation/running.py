"""What generation and teacher forcing share: batches that fit, in an order that depends on nothing but the
content."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from transformers import PreTrainedModel

from kvw.data import ImageSource, Prepared, image_digest, image_groups
from kvw.measuring.batch_sizing import run_batched, token_budget
from kvw.models.placement import execution_device

Key = tuple[str, tuple[str, ...]]
"""A text and the digests of its images: examples with equal keys are the same input to the model."""

Result = TypeVar("Result")


def content_keys(prepared: Sequence[Prepared], texts: Sequence[str]) -> list[Key]:
    """Pair each text with the digests of its example's images.

    Raises:
        UserError: An image file cannot be read.
    """
    digests: dict[ImageSource, str] = {}
    keys = []
    for item, text in zip(prepared, texts, strict=True):
        for source in item.example.images:
            if source not in digests:
                digests[source] = image_digest(source)
        keys.append((text, tuple(digests[source] for source in item.example.images)))
    return keys


def run_grouped(
    prepared: Sequence[Prepared],
    lengths: Sequence[int],
    run: Callable[[list[Prepared]], Result],
    *,
    budget: int,
) -> Iterator[tuple[list[int], Result]]:
    """Like ``run_batched``, with equal image counts in every batch.

    Args:
        prepared: What to run.
        lengths: Tokens of each item, images included.
        run: Called with the items of one batch.
        budget: Padded tokens per batch at the start.

    Yields:
        The positions of the batch's items in ``prepared`` and what ``run`` returned for them; in the first process
        only, if there are several.

    Raises:
        UserError: Memory runs out on a single item.
    """
    for group in image_groups(prepared):
        items = [prepared[position] for position in group]
        for indices, result in run_batched(items, [lengths[position] for position in group], run, budget=budget):
            yield [group[index] for index in indices], result


def budget_for(model: PreTrainedModel, budget: int | None) -> int:
    """The given budget of padded tokens per batch, or the default for the model's device."""
    return token_budget(execution_device(model)) if budget is None else budget
