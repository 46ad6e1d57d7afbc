"""Examples as batches in a known order, for what is measured example by example."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, overload

from torch import Tensor
from transformers import PreTrainedModel

from kvw.data.batches import Prepared, answer_batch, image_groups
from kvw.data.example import Example
from kvw.measuring.batch_sizing import batches_of, token_budget
from kvw.measuring.engine import Batch
from kvw.measuring.prefixes import SharedBatch, bundle, share, shares_prefixes
from kvw.models.placement import execution_device


@dataclass
class Taken:
    """What is already counted of the examples of a forward that failed half-way.

    Args:
        beginnings: Whatever the recorder calls what it has taken from shared beginnings.
        rows: The same of everything else.
    """

    beginnings: set[Hashable] = field(default_factory=set)
    rows: set[Hashable] = field(default_factory=set)

    def copy(self) -> Taken:
        """The same, to be added to independently."""
        return Taken(set(self.beginnings), set(self.rows))


@dataclass(frozen=True)
class Piece:
    """Examples that go through the model at once; their rows are numbered beforehand, over all batches.

    Args:
        first_row: The number of the first.
        rows: How many there are.
        tokens: Tokens of the batch, padding included; an estimate.
        batch: Makes the batch.
        cut: Makes the first and the second half, without what is taken; None if that is not possible.
        taken: What is already counted of these examples.
    """

    first_row: int
    rows: int
    tokens: int
    batch: Callable[[], Batch | SharedBatch]
    cut: Callable[[], Sequence[Piece]] | None = None
    taken: Taken = field(default_factory=Taken)

    def halves(self) -> list[Piece]:
        """The first and the second half, of which the same is taken; nothing if it cannot be cut."""
        return [replace(half, taken=self.taken.copy()) for half in (self.cut() if self.cut and self.rows > 1 else ())]


def pieces_of(batches: Iterable[Batch | SharedBatch]) -> Iterator[Piece]:
    """Batches with the numbers of their rows; those of :class:`LabelledBatches` are made when they are run, and can be
    cut in halves."""
    if isinstance(batches, LabelledBatches):
        yield from batches.pieces
        return
    first_row = 0
    for batch in batches:
        labels = batch.endings if isinstance(batch, SharedBatch) else None
        if isinstance(batch, Mapping) and isinstance(batch.get("labels"), Tensor):
            labels = batch["labels"]
        rows = 0 if labels is None else len(labels)  # what lacks labels is refused when it is run
        yield Piece(first_row, rows, 0 if labels is None else labels.numel(), partial(_as_given, batch))
        first_row += rows


class LabelledBatches(Sequence[Batch | SharedBatch]):
    """Batches of a fixed budget of tokens, the longest examples first among those that share a beginning and among the
    others, made when asked for.

    Args:
        prepared: From :func:`kvw.data.prepare`.
        processor: Its processor.
        model: Decides on the budget, and on whether examples can share what they have in common.
        budget: Padded tokens of a batch; None for the device's default.

    Attributes:
        prepared: What they are made of.
        processor: Its processor.
        order: The example of each row, as position in ``prepared``, over all batches. It does not depend on whether
            batches are cut when memory runs out.
    """

    def __init__(
        self, prepared: Sequence[Prepared], processor: Any, model: PreTrainedModel, budget: int | None = None
    ) -> None:
        self.prepared, self.processor = list(prepared), processor
        self._shares = shares_prefixes(model)
        budget = budget or token_budget(execution_device(model))
        self._batches: list[list[list[Prepared]]] = []
        for places in image_groups(prepared):
            bundles = bundle([prepared[place] for place in places], share=self._shares, budget=budget)
            if not prepared[places[0]].image_count:
                # Texts that begin alike fill batches of their own: side by side, beginnings would be padded.
                self._batches += [[alike] for alike in bundles if len(alike) > 1]
                bundles = [alike for alike in bundles if len(alike) == 1]
            lengths = [sum(item.length for item in alike) for alike in bundles]
            longest_first = sorted(range(len(bundles)), key=lambda index: (-lengths[index], index))
            for indices in batches_of(longest_first, lengths, budget):
                self._batches.append([bundles[index] for index in indices])
        places_of = {id(item): place for place, item in enumerate(prepared)}
        self.order = [places_of[id(item)] for batch in self._batches for alike in batch for item in alike]

    @property
    def pieces(self) -> list[Piece]:
        """The batches, yet to be made."""
        pieces: list[Piece] = []
        for batch in self._batches:
            first_row = pieces[-1].first_row + pieces[-1].rows if pieces else 0
            pieces.append(self._piece(first_row, batch))
        return pieces

    @property
    def examples(self) -> list[Example]:
        """The examples in the order of the rows."""
        return [self.prepared[place].example for place in self.order]

    def unshared(self) -> LabelledBatches:
        """The same examples in the same order and batches, nothing run once for several of them."""
        copied = copy.copy(self)
        copied._shares = False
        return copied

    def one_by_one(self) -> LabelledBatches:
        """The same examples in the order in which they were given, each in a batch of its own, nothing shared."""
        batches = self.unshared()
        batches._batches = [[[item]] for item in self.prepared]
        batches.order = list(range(len(self.prepared)))
        return batches

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
        return self._made(self._batches[index])

    def _made(self, bundles: list[list[Prepared]]) -> Batch | SharedBatch:
        if self._shares and (bundles[0][0].image_count or len(bundles[0]) > 1):
            return share(bundles, self.processor)
        return answer_batch([item for alike in bundles for item in alike], self.processor)

    def _piece(self, first_row: int, bundles: list[list[Prepared]]) -> Piece:
        """Whole bundles."""
        if len(bundles) == 1:
            return self._part(first_row, bundles[0], slice(0, len(bundles[0])))
        middle = len(bundles) // 2
        first, second = bundles[:middle], bundles[middle:]
        second_row = first_row + sum(map(len, first))

        def cut() -> list[Piece]:
            return [self._piece(first_row, first), self._piece(second_row, second)]

        tokens = len(bundles) * max(sum(item.length for item in alike) for alike in bundles)
        return Piece(first_row, sum(map(len, bundles)), tokens, partial(self._made, bundles), cut)

    def _part(self, first_row: int, alike: list[Prepared], rows: slice) -> Piece:
        """Some examples of a bundle, with the beginning that all of it share: otherwise it would not be known which
        of their tokens were counted with the beginning before the bundle was cut."""
        middle = (rows.start + rows.stop) // 2

        def cut() -> list[Piece]:
            halves = slice(rows.start, middle), slice(middle, rows.stop)
            return [self._part(first_row + half.start - rows.start, alike, half) for half in halves]

        def batch() -> Batch | SharedBatch:
            made = self._made([alike])
            return _with_rows(made, rows) if isinstance(made, SharedBatch) else self._made([alike[rows]])

        return Piece(first_row, rows.stop - rows.start, sum(item.length for item in alike[rows]), batch, cut)


def _with_rows(batch: SharedBatch, rows: slice) -> SharedBatch:
    """Some examples of a batch of one bundle."""
    present = batch.present[rows]
    width = int(present.sum(1).max())
    return replace(
        batch,
        owners=batch.owners[rows],
        endings=batch.endings[rows, :width],
        present=present[:, :width],
        answers=batch.answers[rows],
    )


def _as_given(batch: Batch | SharedBatch) -> Batch | SharedBatch:
    return batch
