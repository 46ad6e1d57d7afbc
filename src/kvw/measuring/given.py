"""What callers give from Python: examples with a processor, batches of :func:`kvw.batches`, or batches of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, TypeAlias, cast

from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from kvw.data import Example
from kvw.data.rows import examples_of
from kvw.errors import UserError
from kvw.measuring import engine
from kvw.measuring.engine import Batch
from kvw.measuring.examples import measure_examples
from kvw.measuring.in_memory import InMemory, in_memory
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.prefixes import SharedBatch
from kvw.measuring.sources import Positions
from kvw.measuring.statistics import Statistics
from kvw.progress import Progress

Batches: TypeAlias = Iterable[Batch] | Iterable[Batch | SharedBatch]
Given: TypeAlias = Iterable[Example] | Iterable[Mapping[str, Any]] | Batches
"""Examples: what :func:`kvw.read_examples` returns, or mappings with ``question`` and ``answer``. Or batches: those of
:func:`kvw.batches`, or mappings of what the model's forward takes, with ``labels`` (batch, tokens), int64, -100 outside
the answer."""


def batches_given(model: PreTrainedModel, given: Given, processor: Any, name: str) -> Iterable[Batch | SharedBatch]:
    """Batches as they are, and examples as batches.

    Args:
        model: The model that they are for.
        given: Examples or batches.
        processor: The model's processor or tokenizer; None if batches are given.
        name: What messages call them.

    Returns:
        Batches; :class:`LabelledBatches` if there were examples. Those of an iterator are an iterator.

    Raises:
        UserError: They are neither, an example cannot be used, or examples come without a processor.
    """
    examples, batches = _looked_at(given, name)
    return batches if examples is None else _with(model, processor, name).batches(examples)


def examples_given(
    model: PreTrainedModel, given: Mapping[str, Given], processor: Any
) -> tuple[InMemory, list[list[Example]]]:
    """Sets of examples, given as such or as batches of :func:`kvw.batches`, with the model and its processor.

    Args:
        model: The model.
        given: Sets by what messages call them.
        processor: The model's processor or tokenizer; None if all are batches.

    Returns:
        The model with its processor, and the examples of each set in the order in which they were given.

    Raises:
        UserError: They are batches of the caller's own, an example cannot be used, or there is no processor.
    """
    sets = []
    for name, one in given.items():
        examples, batches = _looked_at(one, name)
        if isinstance(batches, LabelledBatches):
            processor = batches.processor if processor is None else processor
            examples = [item.example for item in batches.prepared]
        if examples is None and next(iter(batches), None) is not None:
            raise UserError(
                f"This method reads the examples of the {name} set themselves.",
                found="batches",
                do="give examples with processor=..., or kvw.batches(model, processor, examples)",
            )
        sets.append(examples or [])
    return _with(model, processor, next(iter(given))), sets


def measure(
    model: PreTrainedModel,
    data: Given,
    *,
    processor: Any = None,
    layers: tuple[int, int] | None = None,
    positions: Positions = "answer",
    progress: Progress | None = None,
) -> Statistics:
    """Measure the mean absolute coefficients of every knowledge vector (C_f or C_r of the paper) over a data set.

    Several processes (:func:`kvw.together`) share the batches among them, and the result has the digits that one
    process gives.

    Args:
        model: A loaded model; an edit attached to it is in force, and coefficients are those before its gates.
        data: Examples or batches, see :data:`Given`; any order, any padding, any batch size.
        processor: The model's processor or tokenizer, for examples.
        layers: First and last layer, 0-based, both included; None for all, so that the statistics serve any range.
        positions: ``answer`` or ``all``.
        progress: Called after every batch.

    Returns:
        For every value matrix in the range, sums of absolute coefficients (width,), float64, and how many positions
        they are over.

    Raises:
        UserError: An unknown family, a range outside the model, an example or batch that cannot be used, no position
            at all that counts, or coefficients that are not finite.
    """
    batches = batches_given(model, data, processor, "data")
    if not isinstance(batches, LabelledBatches):
        return engine.measure(
            model, cast(Iterable[Batch], batches), layers=layers, positions=positions, progress=progress
        )
    measured = measure_examples(
        model, batches.processor, batches.prepared, layers=layers, positions=positions, progress=progress
    )
    return measured.statistics


def _looked_at(given: Given, name: str) -> tuple[list[Example] | None, Iterable[Batch | SharedBatch]]:
    """Examples, or None and the batches; batches of :func:`kvw.batches` stay what they are.

    Only the first one is looked at. That of an iterator is put back. A loader is not asked: one that shuffles would
    begin another order.
    """
    batches: Any = given
    if isinstance(given, (LabelledBatches, DataLoader)):
        return None, batches
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise UserError(
            f"The {name} set is neither examples nor batches.",
            found=f"{type(given).__name__}",
            do="read a file with kvw.read_examples(path); one example or batch goes into a list",
        )
    entries: Any = iter(given)
    nothing = object()
    first = next(entries, nothing)
    if entries is given:
        batches = () if first is nothing else chain([first], entries)
    if first is nothing or isinstance(first, SharedBatch):
        return None, batches
    if isinstance(first, Mapping) and any(isinstance(value, Tensor) for value in first.values()):
        return None, batches
    return examples_of(batches), ()


def _with(model: PreTrainedModel, processor: Any, name: str) -> InMemory:
    if processor is None:
        raise UserError(
            f"The {name} set is given as examples, and no processor to ask them with.",
            do="add processor=..., from AutoProcessor.from_pretrained (AutoTokenizer for a model of text)",
        )
    return in_memory(model, processor)
