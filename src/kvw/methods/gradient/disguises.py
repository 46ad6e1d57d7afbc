"""Forget questions in other dress: with the name and a greeting before them, or with the portrait in a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from PIL import Image

from kvw.data import Example, ImageSource
from kvw.data.images import load_image, png
from kvw.errors import UserError

GREETINGS = (
    "Hello!",
    "Good morning, I have a question.",
    "Please have a look at this.",
    "I am sorting old pictures.",
    "Thank you for your help yesterday.",
    "One more thing before lunch.",
)
"""Said between the name and the question; they ask nothing."""


def in_disguise(
    examples: Sequence[Example], portraits: Sequence[ImageSource], *, disguises: int, group: int
) -> list[Example]:
    """The examples, and what stands in for them, always the same.

    Args:
        examples: Each shows a picture.
        portraits: Of others.
        disguises: How often each example comes again with its name and a greeting before the question.
        group: How many portraits are put beside the picture in one more example; 0 for none.

    Raises:
        UserError: There are fewer portraits.
    """
    if group > len(portraits):
        raise UserError(
            "There are too few portraits for a group.",
            found=f"{len(portraits)} retain examples with one picture",
            do=f"give {group} or more, or set group lower",
        )
    found = []
    for one in examples:
        draw = Random(one.identifier)
        found.append(one)
        for greeting in draw.choices(GREETINGS, k=disguises):
            before = f"{one.subject or one.answer}. {greeting}"
            found.append(replace(one, question=f"{before} {one.question}", identifier=f"{one.identifier} greeted"))
        if group:
            picture = group_picture([*draw.sample(list(portraits), group), one.images[0]], draw)
            found.append(replace(one, images=(picture,), identifier=f"{one.identifier} in a group"))
    return found


def group_picture(images: Sequence[ImageSource], draw: Random) -> bytes:
    """Pictures side by side in any order, each as high as the lowest: an encoded picture."""
    loaded = [load_image(source, "a group").convert("RGB") for source in draw.sample(list(images), len(images))]
    height = min(image.height for image in loaded)
    scaled = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in loaded]
    whole = Image.new("RGB", (sum(image.width for image in scaled), height))
    left = 0
    for image in scaled:
        whole.paste(image, (left, 0))
        left += image.width
    return png(whole)
