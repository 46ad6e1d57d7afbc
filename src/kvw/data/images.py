"""Images as the processors expect them: RGB, upright, without alpha."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

import numpy
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from kvw.data.example import Example, ImageSource
from kvw.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""The formats that are opened, by Pillow's names; no other decoder is tried. AVIF only where Pillow has it."""
MOST_PIXELS = 64 * 10**6
"""Most pixels of one image, for example 8,000 x 8,000. Decoding it takes up to 1.5 GB of memory."""
MOST_ASPECT = 200
"""Longer side / shorter side: most processors scale the shorter one up to theirs, so 1 x 65,000 becomes gigabytes."""
MOST_BYTES = 2**30
"""Largest file of one image: some decoders read all of it first."""
LARGE = 8 * 10**6
"""Images with more pixels are decoded one at a time when all images of a data set are checked."""
_one_large = Lock()
# MOST_PIXELS is below what Pillow warns of; appended, so that a program's own choice comes first.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
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
        UserError: The image is of no format among ``FORMATS``, has more pixels than ``MOST_PIXELS`` or bytes than
            ``MOST_BYTES``, is longer and narrower than ``MOST_ASPECT`` allows, is truncated or damaged.
    """
    with _opened(source, identifier) as image:
        image.load()
        form = image.format
        ImageOps.exif_transpose(image, in_place=True)
        image.format = form  # turning loses it
        return _rgb(image)


def image_size(source: ImageSource, identifier: str) -> tuple[int, int]:
    """Read (height, width) in pixels from the header, as stored: the EXIF orientation may swap the two.

    Raises:
        UserError: As :func:`load_image`, as far as the header tells.
    """
    with _opened(source, identifier) as image:
        return image.height, image.width


def png(image: Image.Image) -> bytes:
    """An image as a file, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def check_images(examples: Iterable[Example]) -> None:
    """Decode every image once, several at a time, so that all damaged ones are found before a long run begins.

    Raises:
        UserError: An image cannot be read; names the first example of such a one, and says how many there are.
    """
    owners: dict[ImageSource, str] = {}
    for example in examples:
        for source in example.images:
            owners.setdefault(source, example.identifier)
    faults = list(image_faults(owners))
    if len(faults) > 1:
        found = f"{faults[0].found}; this is the first of {len(faults)} such images among {len(owners)}"
        raise UserError(faults[0].what, found=found, do=faults[0].do) from faults[0]
    if faults:
        raise faults[0]


def image_faults(images: Mapping[ImageSource, str]) -> Iterator[UserError]:
    """Decode images once, several at a time.

    Args:
        images: How messages name what each belongs to.

    Yields:
        What :func:`load_image` says of each that cannot be read, in their order.
    """
    with ThreadPoolExecutor() as pool:
        yield from filter(None, pool.map(_fault, images.items()))


def _fault(owned: tuple[ImageSource, str]) -> UserError | None:
    try:
        height, width = image_size(*owned)
        if height * width <= LARGE:
            load_image(*owned)
        else:
            with _one_large:
                load_image(*owned)
    except UserError as error:
        return error
    return None


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


@contextmanager
def _opened(source: ImageSource, identifier: str) -> Iterator[Image.Image]:
    """An image whose header was read and is within the bounds; whatever a decoder raises inside becomes one message."""
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > MOST_BYTES:
            raise UserError(
                f"{identifier}: the file of an image is too large.",
                found=f"{_name(source)}: {size} bytes, more than {MOST_BYTES}",
                do="save the image in a format that compresses",
            )
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            _check_bounds(image, source, identifier)
            yield image
    except UserError:
        raise
    except Exception as error:  # decoders raise whatever they like: struct.error, RuntimeError, SyntaxError ...
        unknown = isinstance(error, UnidentifiedImageError)
        what = "no picture in a known format" if unknown else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{identifier}: an image cannot be read.",
            found=f"{_name(source)}: {what}",
            do=f"replace the image, or save it in one of the formats {', '.join(FORMATS)}, or remove the example",
        ) from error


def _check_bounds(image: Image.Image, source: ImageSource, identifier: str) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{identifier}: an image has too many pixels.",
            found=f"{_name(source)}: {width} x {height} pixels, more than {MOST_PIXELS // 10**6} million",
            do="make the image smaller",
        )
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise UserError(
            f"{identifier}: an image is too long and narrow.",
            found=f"{_name(source)}: {width} x {height} pixels, a ratio above {MOST_ASPECT}:1",
            do="cut out the part that matters, or add a border",
        )


def _name(source: ImageSource) -> str:
    return f"{len(source)} bytes inside the data file" if isinstance(source, bytes) else str(source)


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
    values = numpy.asarray(image).astype(numpy.float64)
    numpy.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    lowest, highest = float(values.min()), float(values.max())
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode == "F" and lowest >= 0 and highest <= 1:
        values *= 255
    elif lowest >= 0 and highest <= 65535 and image.mode != "F" and (sixteen_bits or highest > 255):
        values /= SIXTEEN_BIT_STEP
    elif lowest < 0 or highest > 255:
        # Halved first, so that the difference of two huge floats stays finite.
        span = highest / 2 - lowest / 2
        if span > 0:
            values /= 2
            values -= lowest / 2
            values /= span
            values *= 255
        else:
            values[...] = 127.5
    return Image.fromarray(numpy.rint(values, out=values).astype(numpy.uint8))
