"""The messages of a request, as the chat template of a model takes them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kvw.data import Example
from kvw.data.batches import Prepared, prompt_batch
from kvw.data.rendering import IMAGE_PLACEHOLDERS, OTHER_PLACEHOLDERS, Processor, apply_template, placeholders_of
from kvw.data.text import TextProcessor
from kvw.errors import UserError
from kvw.serving.refusals import Refusal

DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]+;base64,(.*)", re.DOTALL)
REQUEST = "request"
"""How messages name what came over the network."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(_Strict):
    """A piece of text in a message."""

    type: Literal["text"]
    text: str


class ImageAddress(_Strict):
    """Where an image is."""

    url: str
    detail: Literal["auto"] = "auto"


class ImagePart(_Strict):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageAddress


class Message(_Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]

    @property
    def parts(self) -> list[TextPart | ImagePart]:
        """The content as a list."""
        return [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content


@dataclass(frozen=True)
class Conversation:
    """What a model is to answer.

    Args:
        messages: For the chat template; images are placeholders.
        images: The encoded images in the order of their placeholders.
    """

    messages: list[dict[str, Any]]
    images: tuple[bytes, ...]


def conversation(messages: Sequence[Message]) -> Conversation:
    """Read the messages of a request.

    Raises:
        Refusal: The last message is not the user's, an image is elsewhere than in the user's messages or is no data
            URL, or a text is not valid Unicode.
    """
    if messages[-1].role != "user":
        raise Refusal(400, "The last message must be the user's.", parameter="messages")
    rendered, images = [], []
    for message in messages:
        parts: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                parts.append({"type": "text", "text": _checked_text(part.text)})
            elif message.role != "user":
                raise Refusal(400, "Only messages of the user can have images.", parameter="messages")
            else:
                parts.append({"type": "image"})
                images.append(_decoded(part.image_url.url))
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
    try:
        prompt = _rendered(conversation, processor)
        example = Example("", "", conversation.images, REQUEST)
        prepared = Prepared(example=example, prompt=prompt, full=prompt, answer_ids=(), token_ids=(), length=0)
        return dict(prompt_batch([prepared], processor))
    except UserError as error:
        raise Refusal(400, str(error), parameter="messages") from error


def _rendered(conversation: Conversation, processor: Processor) -> str:
    images = len(conversation.images)
    if images and isinstance(processor, TextProcessor):
        raise UserError("This model is one of text alone.", found=f"{images} images", do="leave the images out")
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
    prompt = apply_template(REQUEST, processor, conversation.messages, add_generation_prompt=True)
    for role, text in texts:
        # Templates may shorten what the model itself has said, its thoughts for example.
        if role != "assistant" and text.strip() not in prompt:
            raise UserError(f"The model's chat template does not show the text of the {role}.", found=text[:100])
    shown = [prompt.count(token) for token in placeholders_of(processor, IMAGE_PLACEHOLDERS)]
    if shown and images not in shown:
        raise UserError(
            "The model's chat template does not show every image.", found=f"{images} images, {max(shown)} shown"
        )
    return prompt


def _checked_text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(400, "A text is not valid Unicode: half of a surrogate pair.", parameter="messages") from error
    return text


def _decoded(url: str) -> bytes:
    found = DATA_URL.fullmatch(url)
    if found is None:
        # Fetching what a client names would let it reach whatever this machine can reach.
        raise Refusal(
            400,
            f"An image must come inside the request, as data:image/png;base64,...; this one starts with {url[:30]!r}.",
            parameter="messages",
        )
    try:
        return base64.b64decode(found[1], validate=True)
    except binascii.Error as error:
        raise Refusal(400, f"The data of an image are not base64: {error}.", parameter="messages") from error
