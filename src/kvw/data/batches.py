"""Examples as the tensors a model takes: teacher-forced answers and prompts to generate from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvw.data.context import context_length
from kvw.data.example import Example, ImageSource
from kvw.data.images import image_size, load_image
from kvw.data.placeholders import IMAGE_PLACEHOLDERS, placeholders_of
from kvw.data.rendering import Processor, adds_special_tokens, render, unchanged
from kvw.errors import UserError

if TYPE_CHECKING:
    # Only for the annotations: reading and checking data must not cost the import of torch.
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

IGNORED = -100
"""The label of a position that is not an answer token."""
TOKENS_PER_IMAGE = 576
"""Estimate for processors that do not say: the 24 x 24 patches of LLaVA-1.5."""
TOKENS_OF_AN_IMAGE = ("image_seq_length", "image_seq_len", "num_image_tokens")
"""How processors that cannot count name the tokens of an image, or of each piece that they cut it into."""


@dataclass(frozen=True)
class Prepared:
    """An example that has been rendered and checked, ready to be put into a batch.

    Args:
        example: The example itself.
        prompt: The rendered prompt, image placeholders not yet expanded.
        full: The rendered prompt followed by the answer.
        answer_ids: The answer's token ids; the last tokens of ``full``, in order.
        token_ids: All token ids of ``full``, image placeholders not yet expanded.
        length: Tokens of ``full`` with the image placeholders expanded, estimated; batches are sorted and
            sized by it.
    """

    example: Example
    prompt: str
    full: str
    answer_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    length: int

    @property
    def image_count(self) -> int:
        """How many images the example has; only examples with equal counts go into one batch."""
        return len(self.example.images)


def prepare(
    examples: Sequence[Example], processor: Processor, config: PretrainedConfig | None = None, *, new_tokens: int = 0
) -> list[Prepared]:
    """Render and check all examples before any forward pass.

    Of the images only the headers are read, so a file that is damaged further on is found by ``load_image``
    later.

    Args:
        examples: What to prepare.
        processor: The Hugging Face processor of the model.
        config: The model's configuration; None does not look whether the examples fit into its context and vocabulary.
        new_tokens: The longest answer that will be generated, in tokens.

    Returns:
        One item per example, in order.

    Raises:
        UserError: An example cannot be rendered, its answer is not found, an image header cannot be read
            or has a size that the processor refuses, prompt and answer together are longer than the model's
            context, or a token is none of the model's. The message names the example.
    """
    limit = None if config is None else context_length(config)
    sizes: dict[ImageSource, tuple[int, int]] = {}
    prepared = []
    for example in examples:
        rendered = render(example, processor)
        for source in example.images:
            if source not in sizes:
                sizes[source] = image_size(source, example.identifier)
        expanded = _image_tokens(example, processor, [sizes[source] for source in example.images])
        prepared.append(
            Prepared(
                example=example,
                prompt=rendered.prompt,
                full=rendered.full,
                answer_ids=rendered.answer_ids,
                token_ids=rendered.token_ids,
                length=len(rendered.token_ids) + expanded,
            )
        )
        if config is not None:
            _check_vocabulary(prepared[-1], processor, config)
        if limit is not None:
            _check_context(prepared[-1], processor, limit, new_tokens)
    return prepared


def image_groups(prepared: Sequence[Prepared]) -> list[list[int]]:
    """Split positions into groups that may share a batch: those with equal image counts, plain text apart.

    Processors disagree about rows with and without images in one call (some refuse it, some need nested
    lists, some flat ones); with equal counts a nested list means the same to all of them. Plain text takes the special
    tokens that a chat template would have put.

    Returns:
        Positions in ``prepared``, ascending in each group; groups in ascending order of their image count.
    """
    groups: dict[tuple[int, bool], list[int]] = {}
    for position, item in enumerate(prepared):
        groups.setdefault((item.image_count, item.example.plain), []).append(position)
    return [groups[alike] for alike in sorted(groups)]


def answer_batch(prepared: Sequence[Prepared], processor: Processor) -> dict[str, torch.Tensor]:
    """Make a teacher-forced batch: prompts with their answers, padded on the right.

    Args:
        prepared: Examples with equal image counts (see ``image_groups``).
        processor: The processor they were prepared with; left as it was.

    Returns:
        What the processor returns, on the CPU (``input_ids`` and ``attention_mask`` int64 of shape (batch,
        sequence), images in the form the model takes), and ``labels`` int64 of shape (batch, sequence): the
        token id at answer tokens, -100 everywhere else. Labels are not shifted: the label at position t is
        predicted at position t - 1.

    Raises:
        UserError: An image cannot be decoded, or the last tokens of a row are not the answer's.
        ValueError: The examples have different numbers of images, or there are none.
    """
    batch = _encode(prepared, [item.full for item in prepared], processor, padding_side="right")
    token_ids = batch["input_ids"]
    labels = token_ids.new_full(token_ids.shape, IGNORED)
    for row, item in enumerate(prepared):
        attended = batch["attention_mask"][row].nonzero().flatten()
        positions = attended[-len(item.answer_ids) :]
        own = token_ids[row, positions]
        if tuple(own.tolist()) != item.answer_ids:
            raise UserError(
                f"{item.example.identifier}: the processor's tokens do not end with the answer.",
                found=repr(processor.tokenizer.decode(own)),
                do="use the processor the examples were prepared with; it must not add an end token",
            )
        labels[row, positions] = own
    return {**batch, "labels": labels}


def prompt_batch(prepared: Sequence[Prepared], processor: Processor) -> dict[str, torch.Tensor]:
    """Make a batch to generate from: prompts, padded on the left so that each ends where its answer begins.

    Args:
        prepared: Examples with equal image counts (see ``image_groups``).
        processor: The processor they were prepared with; left as it was.

    Returns:
        What the processor returns, on the CPU; ``input_ids`` int64 of shape (batch, sequence).

    Raises:
        UserError: An image cannot be decoded.
        ValueError: The examples have different numbers of images, or there are none.
    """
    return _encode(prepared, [item.prompt for item in prepared], processor, padding_side="left")


def to_model(batch: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Move a batch to where the model takes its input, and its images to the model's data type.

    A model whose embeddings are offloaded (on the ``meta`` device) moves its input by itself; the batch then
    stays.

    Args:
        batch: Tensors from ``answer_batch`` or ``prompt_batch``.
        model: A Hugging Face model.

    Returns:
        The same batch on the model's input device; floating-point tensors in the model's data type.
    """
    device = model.get_input_embeddings().get_parameter("weight").device
    moved: dict[str, torch.Tensor] = {}
    for name, tensor in batch.items():
        if device.type != "meta":
            tensor = tensor.to(device)
        moved[name] = tensor.to(model.dtype) if tensor.is_floating_point() else tensor
    return moved


def _check_vocabulary(item: Prepared, processor: Processor, config: PretrainedConfig) -> None:
    size = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    beyond = {token for token in item.token_ids if isinstance(size, int) and token >= size}
    if beyond:  # placeholders of images may be: the images take their place
        beyond -= set(processor.tokenizer.convert_tokens_to_ids(placeholders_of(processor, IMAGE_PLACEHOLDERS)))
    if beyond:
        token = min(beyond)
        raise UserError(
            f"{item.example.identifier}: the tokenizer has tokens that the model does not have.",
            found=f"{processor.tokenizer.convert_ids_to_tokens(token)!r} is token {token}, and the model has {size}",
            do="use the tokenizer that belongs to these weights",
        )


def _check_context(item: Prepared, processor: Processor, limit: int, new_tokens: int) -> None:
    answer = len(item.answer_ids)
    prompt = item.length - answer
    longest = max(answer, new_tokens)
    if item.image_count and 2 * (prompt + longest) > limit:
        with suppress(UserError):  # told where images are decoded; some runs only count those that cannot be
            prompt = _encode([item], [item.full], processor, padding_side="right")["input_ids"].shape[1] - answer
    if prompt + longest <= limit:
        return
    if prompt + answer > limit:
        what, do = "the prompt with its answer is", "shorten the texts or the images, or leave the example out"
    else:
        what = f"the prompt with an answer of up to {new_tokens} new tokens is"
        do = f"allow at most {limit - prompt} new tokens (--max-new-tokens), or leave the example out"
    raise UserError(
        f"{item.example.identifier}: {what} longer than the model's context.",
        found=f"{prompt} tokens of the prompt and {longest} of the answer, where the model takes {limit} in all",
        do=do,
    )


def _encode(
    prepared: Sequence[Prepared],
    texts: list[str],
    processor: Processor,
    *,
    padding_side: Literal["left", "right"],
) -> dict[str, torch.Tensor]:
    counts = sorted({item.image_count for item in prepared})
    if len(counts) != 1:
        raise ValueError(f"a batch needs examples with equal numbers of images, got {counts}; use image_groups")
    images = [[load_image(source, item.example.identifier) for source in item.example.images] for item in prepared]
    with unchanged(processor.tokenizer):
        features = processor(
            text=texts,
            images=images if counts != [0] else None,
            padding=True,
            padding_side=padding_side,
            truncation=False,
            add_special_tokens=adds_special_tokens(processor, texts[0]),
            return_tensors="pt",
        )
    return dict(features)


def _image_tokens(example: Example, processor: Processor, sizes: list[tuple[int, int]]) -> int:
    """How many tokens the images add to the rendered text, where each has one placeholder."""
    if not sizes:
        return 0
    count = getattr(processor, "_get_num_multimodal_tokens", None)
    if count is None:
        stated = (getattr(processor, name, None) for name in TOKENS_OF_AN_IMAGE)
        return len(sizes) * next((tokens for tokens in stated if tokens is not None), TOKENS_PER_IMAGE)
    try:
        counted = count(image_sizes=[list(size) for size in sizes])
    except ValueError as error:
        raise UserError(
            f"{example.identifier}: the processor does not take an image of this size.",
            found=f"(height, width) {', '.join(map(str, sizes))}: {error}",
            do="crop or resize the image, or remove the example",
        ) from error
    return sum(int(tokens) - 1 for tokens in counted["num_image_tokens"])
