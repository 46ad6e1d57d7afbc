"""Texts that stand for images, video or sound in prompts, and do not belong into a question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kvw.data.templates import Processor

IMAGE_PLACEHOLDERS = ("image_token", "boi_token")
OTHER_PLACEHOLDERS = ("video_token", "audio_token")
ANY_FAMILYS = re.compile(
    r"<(?:image|Image|IMAGE)(?:_soft_token|_placeholder|Here|[ _-]?\d+)?>"
    r"|<\|(?:image|img|vision|video|audio|media)[\w ]*\|>"
    r"|<(?:start|end)_of_(?:image|audio)>|<\|(?:begin|end)_of_(?:image|video|audio)\|>"
    r"|<(?:audio|video)_soft_token>|<fake_token_around_image>|<IMG_(?:CONTEXT|ATOM|START|END)>"
    r"|\[IMG(?:_BREAK|_END)?\]"
)
"""Placeholders of images, and those of video and sound that mean nothing else, in the families that there are and in
data sets. ``<video>``, ``<audio>`` and ``<img>`` are HTML, too: they count only where the model has them."""


def placeholders_of(processor: Processor, attributes: Sequence[str]) -> list[str]:
    """The texts that stand for images, video or sound in this model's prompts.

    Args:
        processor: A Hugging Face processor.
        attributes: :data:`IMAGE_PLACEHOLDERS`, :data:`OTHER_PLACEHOLDERS` or both.
    """
    # Some families give the processor and its tokenizer different ones (Gemma 3: start of image, soft token).
    holders = (processor, processor.tokenizer)
    names = [getattr(holder, name, None) for holder in holders for name in attributes]
    return list(dict.fromkeys(str(token) for token in names if token is not None))


def placeholder_in(text: str) -> str:
    """The first placeholder of any family in a text; empty if there is none."""
    match = ANY_FAMILYS.search(text)
    return match[0] if match else ""
