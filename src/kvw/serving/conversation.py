"""The messages of a request, as the chat template of a model takes them."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvw.data import Example
from kvw.data.batches import Prepared, prompt_batch
from kvw.data.images import image_size
from kvw.data.placeholders import IMAGE_PLACEHOLDERS, OTHER_PLACEHOLDERS, placeholder_in, placeholders_of
from kvw.data.templates import Processor
from kvw.data.text import TextProcessor
from kvw.data.thoughts import answer_place
from kvw.errors import UserError
from kvw.serving import limits
from kvw.serving.messages import ImagePart, Message, RefusalPart
from kvw.serving.refusals import Refusal

DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]+;base64,(.*)", re.DOTALL)
REQUEST = "request"
"""How messages name what came over the network."""


@dataclass(frozen=True)
class Conversation:
    """What a model is to answer.

    Args:
        messages: Messages for the chat template; images are placeholders.
        images: The encoded images in the order of their placeholders.
    """

    messages: list[dict[str, Any]]
    images: tuple[bytes, ...]

    @property
    def texts(self) -> list[str]:
        """What was said, in its order, by whomever."""
        return [part["text"] for message in self.messages for part in message["content"] if part["type"] == "text"]


def conversation(messages: Sequence[Message], most_images: int = limits.DEFAULTS.images) -> Conversation:
    """Read the messages of a request.

    Args:
        messages: All of them.
        most_images: Images that they may have together.

    Raises:
        Refusal: The last message is not the user's, an image is elsewhere than in the user's messages or is no data
            URL, or there are too many parts, images or pixels.
    """
    if messages[-1].role != "user":
        raise Refusal(400, "The last message must be the user's.", parameter="messages")
    if (count := sum(len(message.content) for message in messages)) > limits.MESSAGES:
        raise Refusal(400, f"The messages have {count} parts, more than {limits.MESSAGES}.", parameter="messages")
    rendered: list[dict[str, Any]] = []
    images: list[bytes] = []
    pixels = 0
    for number, message in enumerate(messages):
        parts: list[dict[str, str]] = []
        for place, part in enumerate(message.content):
            where = f"messages.{number}.content.{place}"
            if isinstance(part, ImagePart):
                if message.role != "user":
                    raise Refusal(400, "Only messages of the user can have images.", parameter=where)
                if len(images) == most_images:
                    raise Refusal(400, f"The request has more than {most_images} images.", parameter=where)
                image = _decoded(part.image_url.url, where)
                pixels += _pixels(image, where)
                if pixels > limits.PIXELS:
                    what = f"The images have more than {limits.PIXELS // 10**6} million pixels together."
                    raise Refusal(400, what, parameter=where)
                parts.append({"type": "image"})
                images.append(image)
            elif isinstance(part, RefusalPart):
                if message.role != "assistant":
                    raise Refusal(400, "Only messages of the assistant can have refusals.", parameter=where)
                parts.append({"type": "text", "text": part.refusal})
            else:
                parts.append({"type": "text", "text": part.text or ""})
        rendered.append({"role": "system" if message.role == "developer" else message.role, "content": parts})
    return Conversation(rendered, tuple(images))


def prompt_inputs(conversation: Conversation, processor: Processor) -> dict[str, Any]:
    """What a model takes to answer: the tensors of one prompt, as ``kvw evaluate`` makes them.

    Returns:
        A batch of one on the CPU, see :func:`kvw.data.batches.prompt_batch`.

    Raises:
        Refusal: The model takes no images, the texts hold its placeholders, its chat template does not show everything,
            or an image cannot be read.
    """
    return batch_inputs([conversation], processor)


def batch_inputs(conversations: Sequence[Conversation], processor: Processor) -> dict[str, Any]:
    """The tensors of several prompts with equal numbers of images, padded on the left.

    Raises:
        Refusal: See :func:`prompt_inputs`.
    """
    try:
        prepared = [_prepared(conversation, processor) for conversation in conversations]
        return dict(prompt_batch(prepared, processor))
    except UserError as error:
        raise Refusal(400, str(error), parameter="messages") from error


def _prepared(conversation: Conversation, processor: Processor) -> Prepared:
    prompt = _rendered(conversation, processor)
    example = Example("", "", conversation.images, REQUEST)
    return Prepared(example=example, prompt=prompt, full=prompt, answer_ids=(), token_ids=(), length=0)


def _rendered(conversation: Conversation, processor: Processor) -> str:
    images = len(conversation.images)
    if images and isinstance(processor, TextProcessor):
        raise UserError("This model takes only text.", found=f"{images} images", do="leave the images out")
    if not getattr(processor, "has_own_template", True) and len(conversation.messages) > 1:
        raise UserError("This model has no chat template.", found="a conversation", do="send one message of the user")
    known = placeholders_of(processor, IMAGE_PLACEHOLDERS + OTHER_PLACEHOLDERS)
    texts = [
        (message["role"], part["text"])
        for message in conversation.messages
        for part in message["content"]
        if part["type"] == "text"
    ]
    for _, text in texts:
        if found := [placeholder for placeholder in known if placeholder in text]:
            raise UserError("A text contains a placeholder of the model.", found=found[0], do="remove it")
        if foreign := placeholder_in(text):
            raise UserError("A text contains a placeholder for an image.", found=foreign, do="remove it")
    prompt = answer_place(REQUEST, processor, conversation.messages, known).prompt
    for role, text in texts:
        # Templates may shorten what the model itself has said, its thoughts for example.
        if role != "assistant" and text.strip() not in prompt:
            raise UserError(
                f"The model's chat template does not show the text of the {role}.",
                found=text[:100],
                do="leave this message out, or serve a model whose chat_template.jinja shows it",
            )
    shown = [prompt.count(token) for token in placeholders_of(processor, IMAGE_PLACEHOLDERS)]
    if shown and images not in shown:
        raise UserError(
            "The model's chat template does not show every image.",
            found=f"{images} images, {max(shown)} shown",
            do="serve a model whose chat_template.jinja shows images",
        )
    return prompt


def _decoded(url: str, where: str) -> bytes:
    match = DATA_URL.fullmatch(url)
    if match is None:
        # Fetching what a client names would let it reach whatever this machine can reach.
        raise Refusal(
            400,
            f"An image must come inside the request, as data:image/png;base64,...; this one starts with {url[:30]!r}.",
            parameter=where,
        )
    try:
        return base64.b64decode(match[1], validate=True)
    except ValueError as error:  # not base64, or not even ASCII
        raise Refusal(400, f"The data of an image are not base64: {error}.", parameter=where) from error


def _pixels(image: bytes, where: str) -> int:
    """Width times height, as the header says: nothing is decoded before the bounds hold."""
    try:
        height, width = image_size(image, REQUEST)
    except UserError as error:
        raise Refusal(400, str(error), parameter=where) from error
    return height * width
