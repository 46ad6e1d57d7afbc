"""The model's own prompt for an example, and which tokens of it are the answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from kvw.data.example import Example
from kvw.data.images import check_images
from kvw.data.placeholders import IMAGE_PLACEHOLDERS as IMAGE_PLACEHOLDERS
from kvw.data.placeholders import OTHER_PLACEHOLDERS as OTHER_PLACEHOLDERS
from kvw.data.placeholders import placeholder_in
from kvw.data.placeholders import placeholders_of as placeholders_of
from kvw.data.templates import Processor as Processor
from kvw.data.templates import apply_template, shortened
from kvw.data.text import TextProcessor
from kvw.data.thoughts import answer_place
from kvw.errors import UserError

Tokenizer: TypeAlias = Any
"""A Hugging Face tokenizer."""


@dataclass(frozen=True)
class Rendered:
    """An example as text, image placeholders not yet expanded.

    Args:
        prompt: Everything up to where the model starts to answer, a closed thought or channel before it included.
        full: The prompt and the answer; nothing follows the answer, no end token either.
        answer_ids: The answer's token ids: the tokens of ``full`` after its longest common prefix with
            ``prompt``.
        token_ids: The tokens of ``full``.
    """

    prompt: str
    full: str
    answer_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


def render(example: Example, processor: Processor) -> Rendered:
    """Render an example with the chat template of the model's processor and find its answer tokens.

    Plain text is shown without the template, and its answer tokens are all that another token precedes.

    The answer span is what follows the longest common prefix of the tokenised prompt and the tokenised full
    text. It is counted from the end, so it still holds after the processor has expanded the image
    placeholders, which all sit in the prompt. A token in which the end of the prompt and the start of the
    answer merge belongs to the answer: it is the first token that the prompt does not have.

    Args:
        example: What to render.
        processor: A Hugging Face processor with a tokenizer and a chat template.

    Returns:
        The texts and the answer's token ids.

    Raises:
        UserError: There is no chat template, it cannot show this example, the text contains a placeholder, or
            the answer is not found at the end of the tokens. The message names the example.
    """
    _check_for_processor(example, processor)
    check_texts(example)
    if example.plain:
        return _plain(example, processor)
    asked = conversation(example)
    answer = message("assistant", example.answer)
    placeholders = placeholders_of(processor, IMAGE_PLACEHOLDERS + OTHER_PLACEHOLDERS)
    place = answer_place(example.identifier, processor, asked, placeholders)
    shown = apply_template(example.identifier, processor, [*asked, answer], continue_final_message=True)
    prompt, full = place.prompt, place.full(shown)
    _check_prompt(example, processor, prompt)
    tokenizer = processor.tokenizer
    with unchanged(tokenizer):
        wanted = adds_special_tokens(processor, prompt)
        prompt_ids = tokenizer(prompt, add_special_tokens=wanted)["input_ids"]
        full_ids = tokenizer(full, add_special_tokens=wanted)["input_ids"]
    shared = common_prefix(prompt_ids, full_ids)
    answer_ids = tuple(full_ids[shared:])
    _check_span(example, processor, answer_ids, prompt_ids[shared:])
    return Rendered(prompt=prompt, full=full, answer_ids=answer_ids, token_ids=tuple(full_ids))


def conversation(example: Example) -> list[dict[str, Any]]:
    """The messages before an answer, as chat templates take them; pictures stand before the text of their message."""
    left = len(example.images) - sum(turn.images for turn in example.earlier)
    earlier = [message(turn.role, turn.text, turn.images) for turn in example.earlier]
    return [*earlier, message("user", example.question, left)]


def message(role: str, text: str, images: int = 0) -> dict[str, Any]:
    """One message as chat templates take it."""
    return {"role": role, "content": [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]}


def _plain(example: Example, processor: Processor) -> Rendered:
    text, tokenizer = example.question + example.answer, processor.tokenizer
    with unchanged(tokenizer):
        wanted = adds_special_tokens(processor, text)
        ids = tokenizer(text, add_special_tokens=wanted)["input_ids"]
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
    before = len(ids) - len(own)
    if ids[before:] != own or len(ids) < 2:
        raise UserError(
            f"{example.identifier}: the text cannot be told from the tokens around it.",
            found=f"{len(ids)} tokens, {before} of them not of the text",
            do="give a longer text, or check that the tokenizer puts no token behind a text",
        )
    return Rendered(prompt=example.question, full=text, answer_ids=tuple(ids[max(1, before) :]), token_ids=tuple(ids))


def adds_special_tokens(processor: Processor, text: str) -> bool:
    """Whether the tokenizer is to add its special tokens: not if the chat template has already put them."""
    beginning = processor.tokenizer.bos_token
    return beginning is None or not text.startswith(beginning)


@contextmanager
def unchanged(tokenizer: Tokenizer) -> Iterator[None]:
    """Leave a tokenizer as it was found.

    Fast tokenizers keep the padding and truncation of the last call, and would write them into a saved
    tokenizer. Inside, a tokenizer without padding token pads with its end token, which the attention mask
    hides.

    Raises:
        UserError: The tokenizer has neither a padding token nor an end token.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    padding = backend.padding if backend is not None else None
    truncation = backend.truncation if backend is not None else None
    without_padding_token = tokenizer.pad_token is None
    if without_padding_token:
        if tokenizer.eos_token is None:
            raise UserError(
                "The tokenizer has neither a padding token nor an end token.",
                do="set processor.tokenizer.pad_token",
            )
        tokenizer.pad_token = tokenizer.eos_token
    try:
        yield
    finally:
        if without_padding_token:
            tokenizer.pad_token = None
        if backend is not None:
            backend.no_padding() if padding is None else backend.enable_padding(**padding)
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)


def check_texts(example: Example) -> None:
    """Refuse texts that no model can be asked.

    Raises:
        UserError: A text is not valid Unicode, holds a placeholder for an image, or the answer is empty; the message
            names the example.
    """
    for name, text in _texts(example):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{example.identifier}: the {name} is not valid Unicode.",
                found=f"half of a surrogate pair at character {error.start + 1} of {shortened(text)}",
                do="repair the text, most likely a \\u escape that was cut in two",
            ) from error
        if placeholder := placeholder_in(text):
            raise UserError(
                f"{example.identifier}: the {name} contains a placeholder for an image.",
                found=f"{placeholder!r} in {shortened(text)}",
                do="remove it, and name the image in a column of its own: a model would read the placeholder as text",
            )
    if not example.answer.strip():
        raise UserError(f"{example.identifier}: the answer is empty.", do="give an answer or remove the example")


def check_examples(examples: Sequence[Example]) -> None:
    """Check every text, and open every picture once, before a model is loaded.

    Raises:
        UserError: See :func:`check_texts` and :func:`kvw.data.images.check_images`.
    """
    for example in examples:
        check_texts(example)
    check_images(examples)


def _texts(example: Example) -> list[tuple[str, str]]:
    """All texts of an example with their names."""
    earlier = [(f"earlier message {place}", turn.text) for place, turn in enumerate(example.earlier, start=1)]
    return [*earlier, ("question", example.question), ("answer", example.answer)]


def _check_for_processor(example: Example, processor: Processor) -> None:
    placeholders = placeholders_of(processor, IMAGE_PLACEHOLDERS + OTHER_PLACEHOLDERS)
    for name, text in _texts(example):
        for placeholder in placeholders:
            if placeholder in text:
                raise UserError(
                    f"{example.identifier}: the {name} contains a placeholder of the model.",
                    found=f"{placeholder!r} in {shortened(text)}",
                    do="remove it: the chat template puts a placeholder for each image by itself",
                )
    if example.images and isinstance(processor, TextProcessor):
        raise UserError(
            f"{example.identifier}: the example has images, and the model takes only text.",
            found=f"{len(example.images)} images",
            do="use a vision-language model, or a file of questions without images",
        )


def _check_prompt(example: Example, processor: Processor, prompt: str) -> None:
    # Templates may shorten what the model itself has said, its thoughts for example.
    said = [*(turn.text for turn in example.earlier if turn.role != "assistant"), example.question]
    if hidden := [text for text in said if text.strip() not in prompt]:
        what = "the question" if hidden == [example.question] else "an earlier message"
        raise UserError(
            f"{example.identifier}: the chat template does not show {what}.",
            found=shortened(prompt),
            do="check that the processor's chat template takes a list of images and text",
        )
    shown = [prompt.count(token) for token in placeholders_of(processor, IMAGE_PLACEHOLDERS)]
    if shown and len(example.images) not in shown:
        raise UserError(
            f"{example.identifier}: the chat template does not show every image.",
            found=f"{len(example.images)} images, {max(shown)} placeholders in {shortened(prompt)}",
            do="use a model whose chat template takes this many images",
        )


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two texts have in common from their beginnings on."""
    length = 0
    for first, second in zip(left, right, strict=False):
        if first != second:
            break
        length += 1
    return length


def _check_span(example: Example, processor: Processor, answer_ids: Sequence[int], prompt_only: Sequence[int]) -> None:
    """Check that the answer's tokens are the answer, and that the prompt has no words that ``full`` has not.

    Args:
        example: For its answer and the message.
        processor: For decoding.
        answer_ids: The tokens of ``full`` after the common prefix.
        prompt_only: The tokens of ``prompt`` after the common prefix: white space where tokens merge, else none.
    """
    placeholders = placeholders_of(processor, IMAGE_PLACEHOLDERS + OTHER_PLACEHOLDERS)
    placeholder_ids = set(processor.tokenizer.convert_tokens_to_ids(placeholders))
    decoded, rest = (
        processor.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for ids in (answer_ids, prompt_only)
    )
    if not answer_ids or placeholder_ids & set(answer_ids) or _normalised(decoded) != _normalised(example.answer):
        found = f"{shortened(decoded)} after the prompt instead of {shortened(example.answer)}"
    elif _normalised(rest):
        found = f"a prompt that ends with {shortened(rest)}, which is not there when the answer follows"
    else:
        return
    raise UserError(
        f"{example.identifier}: answer span not found.",
        found=found,
        do="check that the chat template puts the answer last and leaves it as it is",
    )


def _normalised(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
