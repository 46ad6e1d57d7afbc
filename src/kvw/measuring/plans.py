"""What a pass takes from which examples, and what that means for the tokens of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvw.errors import UserError
from kvw.measuring.engine import Batch
from kvw.measuring.positions import predicting_positions
from kvw.measuring.prefixes import SharedBatch
from kvw.measuring.source_weights import source_weights
from kvw.measuring.sources import Sources


def every_example(_: int) -> bool:
    """Keep the coefficients of every example."""
    return True


def no_example(_: int) -> bool:
    """Keep no example's coefficients."""
    return False


class InOrder:
    """Asks about every example once, in order, and remembers the answers.

    Batches may come in another order, or again: several processes have some of them each, and those for which memory
    runs out are repeated in parts.
    """

    def __init__(self, keep: Callable[[int], bool]) -> None:
        self._keep = keep
        self._answers: list[bool] = []

    def __call__(self, row: int) -> bool:
        """The answer for an example."""
        while len(self._answers) <= row:
            self._answers.append(self._keep(len(self._answers)))
        return self._answers[row]


@dataclass(frozen=True)
class Examples:
    """What a pass takes from which examples, counted over all batches in the order in which they come.

    Args:
        weights: Weight of every example in the moments; None: all 1.
        folds: Fold of every example; None: all 0.
        keep: Whether to keep an example's coefficients at answer-predicting positions; asked once for each, in order.
    """

    weights: Sequence[float] | None = None
    folds: Sequence[int] | None = None
    keep: Callable[[int], bool] = no_example

    def check(self, count: int) -> None:
        """Refuse lists that are too short.

        Raises:
            UserError: There are more examples than weights or folds.
        """
        for name, values in (("weights", self.weights), ("folds", self.folds)):
            if values is not None and len(values) < count:
                raise UserError(
                    f"There are more examples than {name}.",
                    found=f"{len(values)} {name}",
                    do="give one for each example",
                )


@dataclass(frozen=True)
class Plan:
    """What to take from the next forward.

    Args:
        weights: Weights of every token, fold by fold and source by source: (folds, sources, batch * tokens), float64.
        kept: Flat indices of the tokens whose coefficients are kept, ascending: (n,), int64.
        rows: The example of each kept token: (n,), int64.
        offsets: Which answer token each kept token predicts: (n,), int64.
        tokens: Batch size times sequence length.
    """

    weights: Tensor
    kept: Tensor
    rows: Tensor
    offsets: Tensor
    tokens: int


def plan_of(batch: Batch, first_row: int, sources: Sources, examples: Examples, image_ids: Sequence[int]) -> Plan:
    """What is taken from a batch.

    Args:
        batch: The examples as rows, with labels.
        first_row: The number of the first of them.
        sources: How much each kind of position counts.
        examples: Weights, folds, and whose coefficients are kept.
        image_ids: From :func:`~kvw.measuring.source_weights.image_token_ids`.

    Raises:
        UserError: The batch lacks labels, or lists are too short.
    """
    predicting = predicting_positions(batch).cpu()
    rows, length = batch["labels"].shape
    examples.check(first_row + rows)
    numbers = range(first_row, first_row + rows)
    own_weights = torch.tensor([examples.weights[row] if examples.weights else 1.0 for row in numbers]).double()
    weights = source_weights(batch, sources, own_weights, image_ids)
    if examples.folds:
        own_folds = torch.tensor([examples.folds[row] for row in numbers]).repeat_interleave(length)
        folds = torch.arange(1 + max(examples.folds))
        # (folds, 1, tokens) times (sources, tokens): a token counts only in the fold of its example.
        weights = weights * (own_folds == folds[:, None])[:, None, :]
    else:
        weights = weights[None]
    keep = torch.tensor([examples.keep(row) for row in numbers])
    kept = predicting[keep[predicting // length]]  # flat indices; row = index // length
    own_row = kept // length
    # The place of each token among those of its row: its index less that of the row's first. kept ascends.
    starts = torch.searchsorted(own_row, own_row)
    return Plan(weights, kept, first_row + own_row, torch.arange(len(kept)) - starts, rows * length)


def shared_plans(plan: Plan, batch: SharedBatch) -> tuple[Plan, Plan]:
    """The plans of the beginnings, which count for all examples that share them, and of the endings."""
    rows, width = batch.endings.shape
    bundles, cut = batch.seen.shape
    folds, sources = plan.weights.shape[:2]
    weights = plan.weights.view(folds, sources, rows, cut + width)
    # A beginning runs once for all examples that share it, so it carries the sum of their weights.
    first = weights.new_zeros(folds, sources, bundles, cut).index_add_(2, batch.owners, weights[..., :cut])
    nothing = plan.kept[:0]
    # Kept tokens predict answers, so all of them lie in endings.
    own_row, place = plan.kept // (cut + width), plan.kept % (cut + width) - cut
    return (
        Plan(first.flatten(2), nothing, nothing, nothing, bundles * cut),
        Plan(weights[..., cut:].flatten(2), own_row * width + place, plan.rows, plan.offsets, rows * width),
    )
