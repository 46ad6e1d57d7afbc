"""Answers, metrics and summaries for one model, in memory or behind a server, on several splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from kvw.data import Example, ImageSource, load_image, prepare
from kvw.data.images import image_size
from kvw.data.rendering import check_texts
from kvw.data.rows import examples_of
from kvw.errors import UserError
from kvw.evaluation.endpoint import EndpointModel
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import answer_probabilities
from kvw.evaluation.records import Evaluation, Reply, collect
from kvw.measuring.in_memory import in_memory
from kvw.progress import Progress


def evaluate(
    model: PreTrainedModel,
    processor: Any,
    splits: Mapping[str, Sequence[Example] | Sequence[Mapping[str, Any]]],
    *,
    max_new_tokens: int = 50,
    budget: int | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Let a model answer the questions of all splits and compare with the reference answers.

    Everything that can be found out about the data is found out before the first forward pass: all examples
    are prepared and all images decoded once.

    Args:
        model: A model that generates text from images and text; its mode and settings are restored.
        processor: Its processor, or the tokenizer of a text-only model.
        splits: Examples by the name of their split, for example ``forget`` and ``retain``; as objects, or as mappings
            with ``question`` and ``answer``, see :func:`kvw.batches`.
        max_new_tokens: The longest answer in tokens.
        budget: Padded tokens per batch; None for the default of the model's device.
        journal: Keeps what is there as it comes, and gives what an interrupted run of the same fingerprint has left.
        progress: Called with (done, total); every example counts twice, for its answer and for its
            probability.

    Returns:
        One record per example and one summary per split; no example is left out.

    Raises:
        UserError: A split is empty, an example cannot be prepared, or memory runs out on a single example.
    """
    processor = in_memory(model, processor).processor
    read = {name: examples_of(rows) for name, rows in splits.items()}
    examples = _all_examples(read)
    prepared = prepare(examples, processor, model.config, new_tokens=max_new_tokens)
    errors = unreadable_images(examples)
    readable = [row for row in range(len(prepared)) if row not in errors]
    items = [prepared[row] for row in readable]
    answers = generate_answers(
        model,
        processor,
        items,
        max_new_tokens=max_new_tokens,
        budget=budget,
        journal=journal,
        progress=_part(progress, 0, len(items)),
    )
    probabilities = answer_probabilities(
        model, processor, items, budget=budget, journal=journal, progress=_part(progress, len(items), len(items))
    )
    replies = {row: Reply(probability=0.0, error=error) for row, error in errors.items()}
    for row, answer, found in zip(readable, answers, probabilities, strict=True):
        replies[row] = Reply(answer, found.probability)
    return collect(read, [replies[row] for row in range(len(examples))])


def evaluate_endpoint(
    endpoint: EndpointModel,
    splits: Mapping[str, Sequence[Example]],
    *,
    max_new_tokens: int = 50,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Let a model behind a server answer the questions of all splits and compare with the reference answers.

    Args:
        endpoint: The model.
        splits: Examples by the name of their split.
        max_new_tokens: The longest answer in tokens.
        journal: Keeps answers as they come, and gives those that an interrupted run of the same fingerprint has left.
        progress: Called with (done, total).

    Returns:
        One record per example and one summary per split, with no probabilities; no example is left out. Those that the
        server did not answer have failed.

    Raises:
        UserError: A split is empty, a text cannot be asked, an image header cannot be read, or the server cannot be
            used at all.
    """
    examples = _all_examples(splits)
    for example in examples:
        check_texts(example)
        for source in example.images:
            image_size(source, example.identifier)
    errors = unreadable_images(examples)
    readable = [row for row in range(len(examples)) if row not in errors]
    replies = {row: Reply(error=error) for row, error in errors.items()}
    answers = endpoint.answers(
        [examples[row] for row in readable], max_new_tokens=max_new_tokens, journal=journal, progress=progress
    )
    replies.update(zip(readable, answers, strict=True))
    return collect(splits, [replies[row] for row in range(len(examples))])


def _all_examples(splits: Mapping[str, Sequence[Example]]) -> list[Example]:
    empty = [name for name, examples in splits.items() if not examples]
    if empty or not splits:
        raise UserError(
            "There is nothing to evaluate.",
            found=f"no examples in {', '.join(empty)}" if empty else "no splits",
            do="give every split at least one example",
        )
    return [example for examples in splits.values() for example in examples]


def unreadable_images(examples: Sequence[Example]) -> dict[int, str]:
    """Messages for the rows that have an image that cannot be decoded."""
    readable: set[ImageSource] = set()
    errors: dict[int, str] = {}
    for row, example in enumerate(examples):
        for source in example.images:
            if source in readable:
                continue
            message = _decoding_error(source, example.identifier)
            if message is None:
                readable.add(source)
            else:
                errors[row] = message
    return errors


def _decoding_error(source: ImageSource, identifier: str) -> str | None:
    try:
        load_image(source, identifier)
    except UserError as error:
        return error.what  # without the path of this machine, which records must not carry
    return None


def _part(progress: Progress | None, before: int, count: int) -> Progress | None:
    """Report one of two equal parts as a part of the whole."""
    if progress is None:
        return None
    report = progress
    return lambda done, _: report(before + done, 2 * count)
