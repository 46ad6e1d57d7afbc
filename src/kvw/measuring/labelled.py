"""Examples as batches in a known order, for what is measured example by example."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, overload

from transformers import PreTrainedModel

from kvw.data.batches import Prepared, answer_batch, image_groups
from kvw.measuring.engine import Batch
from kvw.measuring.fitting import batches_of, token_budget
from kvw.measuring.prefixes import SharedBatch, bundle, share, shares_prefixes
from kvw.models.placement import execution_device


class LabelledBatches(Sequence[Batch | SharedBatch]):
    """Batches of a fixed budget of tokens, the longest examples first, made when asked for.

    Args:
        prepared: From :func:`kvw.data.prepare`.
        processor: Its processor.
        model: Decides on the budget, and on whether questions about one image can share it.
        budget: Padded tokens of a batch; None for the device's default.

    Attributes:
        order: The example of each row, as position in ``prepared``, over all batches.
    """

    def __init__(
        self, prepared: Sequence[Prepared], processor: Any, model: PreTrainedModel, budget: int | None = None
    ) -> None:
        self._processor = processor
        self._shares = shares_prefixes(model)
        budget = budget or token_budget(execution_device(model))
        self._batches: list[list[list[Prepared]]] = []
        for places in image_groups(prepared):
            bundles = bundle([prepared[place] for place in places], share=self._shares, budget=budget)
            lengths = [sum(item.length for item in alike) for alike in bundles]
            longest_first = sorted(range(len(bundles)), key=lambda index: (-lengths[index], index))
            for indices in batches_of(longest_first, lengths, budget):
                self._batches.append([bundles[index] for index in indices])
        places_of = {id(item): place for place, item in enumerate(prepared)}
        self.order = [places_of[id(item)] for batch in self._batches for alike in batch for item in alike]

    def unshared(self) -> LabelledBatches:
        """The same examples in the same order and batches, nothing run once for several of them."""
        found = copy.copy(self)
        found._shares = False
        return found

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and padded tokens of each batch as :meth:`unshared` makes them, by the estimated lengths."""
        lengths = [[item.length for alike in batch for item in alike] for batch in self._batches]
        return [(len(own), max(own)) for own in lengths]

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Batch | SharedBatch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch | SharedBatch]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        batch = self._batches[index]
        if self._shares and batch[0][0].image_count:
            return share(batch, self._processor)
        return answer_batch([item for alike in batch for item in alike], self._processor)
