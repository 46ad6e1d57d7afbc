"""Images as the processors expect them: RGB, upright, without alpha."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from PIL import Image, ImageCms, ImageOps

from kvw.data.example import Example, ImageSource
from kvw.errors import UserError

# What Pillow's decoders raise on broken files; there is no common base class.
BROKEN_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
SIXTEEN_BIT_STEP = 257
"""65535 / 255: one step of an 8-bit value in 16-bit units."""


def load_image(source: ImageSource, identifier: str) -> Image.Image:
    """Decode an image into 8-bit RGB.

    The EXIF orientation is applied, transparency is composited on white, and 16-bit, 32-bit and float
    greyscale is scaled (and not clipped) to 8 bits. Of an animation the first frame is taken.

    Args:
        source: A file or its encoded bytes.
        identifier: How messages name the example the image belongs to.

    Returns:
        An image of mode ``RGB`` with its pixels in memory.

    Raises:
        UserError: The image cannot be read, is truncated, or is so large that Pillow takes it for an attack.
    """
    try:
        with Image.open(_opened(source)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            upright.format = image.format  # a copy has none
            return _rgb(upright)
    except BROKEN_IMAGE as error:
        raise _unreadable(source, identifier, error) from error


def image_size(source: ImageSource, identifier: str) -> tuple[int, int]:
    """Read (height, width) in pixels from the header, as stored: the EXIF orientation may swap the two.

    Raises:
        UserError: The header cannot be read.
    """
    try:
        with Image.open(_opened(source)) as image:
            return image.height, image.width
    except BROKEN_IMAGE as error:
        raise _unreadable(source, identifier, error) from error


def png(image: Image.Image) -> bytes:
    """An image as a file, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def check_images(examples: Iterable[Example]) -> None:
    """Decode every image once, several at a time, so that a damaged one is found before a long run begins.

    Raises:
        UserError: An image cannot be read; names the example.
    """
    owners = {source: example.identifier for example in examples for source in example.images}
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(_check, owners.items()):
            pass


def _check(owned: tuple[ImageSource, str]) -> None:
    load_image(*owned)


def image_digest(source: ImageSource) -> str:
    """The SHA-256 of the encoded bytes, in hexadecimal.

    Raises:
        UserError: The file cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError("An image cannot be read.", found=f"{source}: {error}", do="check the file") from error


def _opened(source: ImageSource) -> io.BytesIO | Path:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _unreadable(source: ImageSource, identifier: str, error: Exception) -> UserError:
    name = f"{len(source)} bytes inside the data file" if isinstance(source, bytes) else str(source)
    return UserError(
        f"{identifier}: an image cannot be read.",
        found=f"{name}: {type(error).__name__}: {error}",
        do="replace or convert the image, or remove the example",
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(image).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
        if converted is None:
            raise ValueError("conversion from LAB gave no image")
        return converted
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Greyscale with more than 8 bits, scaled to 8; the range is that of the format, or of the values if
    wider.

    Integers: 16 bits where the mode or the format (PNG) says so or the values need it, 8 bits where they fit.
    Floats: 0 to 1, or 0 to 255. Anything wider, or below 0, is stretched from its smallest to its largest
        value.
    """
    values = numpy.nan_to_num(numpy.asarray(image).astype(numpy.float64), nan=0.0, posinf=0.0, neginf=0.0)
    lowest, highest = float(values.min()), float(values.max())
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode == "F" and lowest >= 0 and highest <= 1:
        values = values * 255
    elif lowest >= 0 and highest <= 65535 and image.mode != "F" and (sixteen_bits or highest > 255):
        values = values / SIXTEEN_BIT_STEP
    elif lowest < 0 or highest > 255:
        # Halved first, so that the difference of two huge floats stays finite.
        span = highest / 2 - lowest / 2
        values = (values / 2 - lowest / 2) / span * 255 if span > 0 else numpy.full_like(values, 127.5)
    return Image.fromarray(numpy.rint(values).astype(numpy.uint8))
