"""What a family's processor is made of, and chat templates to go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SIDE, PATCH = 32, 8
"""Pixels of an image's side and of a patch's."""
SQUARE = {"height": SIDE, "width": SIDE}
QWEN_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")


@dataclass(frozen=True)
class RealProcessor:
    """What makes the processor of one family, and what the tiny model needs to go with it."""

    processor: str
    """Class names in transformers."""
    images: str
    template: str
    special_tokens: tuple[str, ...]
    """The first ends an answer, the second pads."""
    image_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the processor."""
    videos: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that the tokenizer knows by name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """By dotted name in the model's configuration."""
    token_ids: Mapping[str, str | list[str]] = field(default_factory=dict)
    """Dotted name in the configuration, and the token (or tokens) whose id goes there."""
    needs_image: str = ""
    """Why a question without an image cannot be asked."""
    package: str = ""
    """What has to be installed besides kvw and its extras."""


def chat(user: str, assistant: str, end: str, image: str, start: str = "") -> str:
    """A chat template: what a turn of the user, of the assistant, the end of a turn and an image look like.

    Args:
        user: Before a question.
        assistant: Where the model starts to answer.
        end: After every turn.
        image: The placeholder.
        start: Before the first turn.
    """
    return (
        start + "{% for message in messages %}"
        "{% if message['role'] == 'user' %}" + user + "{% else %}" + assistant + "{% endif %}"
        "{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}" + image + "{% else %}{{ content['text'] }}{% endif %}"
        "{% endfor %}" + end + "{% endfor %}"
        "{% if add_generation_prompt %}" + assistant + "{% endif %}"
    )


def chatml(image: str, start: str = "") -> str:
    """The form that Qwen has made common."""
    return chat("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n", image, start)
