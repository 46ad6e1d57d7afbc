"""Photos as an attacker may change them: what is shown stays."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO

from PIL import Image, ImageChops, ImageEnhance, ImageOps

from kvw.data import Example, load_image

CROP, DARKER, SPREAD, QUALITY = 0.1, 0.6, 24, 15
"""Cut off of each side; brightness; standard deviation of the noise in levels of 256; quality of JPEG."""


def changed_photos(example: Example) -> Iterator[tuple[str, Example]]:
    """The example with each of its pictures changed, in every way; nothing without pictures.

    Raises:
        UserError: A picture cannot be decoded.
    """
    if example.images:
        pictures = [load_image(source, example.identifier) for source in example.images]
        for name, change in CHANGES.items():
            yield name, replace(example, images=tuple(_png(change(picture)) for picture in pictures))


def _cropped(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    left, top = int(width * CROP), int(height * CROP)
    return picture.crop((left, top, width - left, height - top))


def _darker(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(DARKER)


def _noisy(picture: Image.Image) -> Image.Image:
    draw = random.Random(0)
    levels = bytes(min(255, max(0, round(draw.gauss(128, SPREAD)))) for _ in range(3 * picture.width * picture.height))
    return ImageChops.add(picture, Image.frombytes("RGB", picture.size, levels), offset=-128)


def _compressed(picture: Image.Image) -> Image.Image:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return Image.open(buffer).convert("RGB")


def _png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": _cropped,
    "mirrored": ImageOps.mirror,
    "darker": _darker,
    "noisy": _noisy,
    "compressed": _compressed,
}
