"""Examples from what Python holds: rows like those of a data file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from kvw.data.columns import IMAGE_COLUMNS, named
from kvw.data.example import Example
from kvw.data.images import png
from kvw.data.readers import examples_in
from kvw.errors import UserError

HERE = Path("example")
"""Stands where data files have their own name: rows are ``example:1``, paths are relative to the working directory."""
OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
"""Modes of pictures that a PNG holds."""


def examples_of(rows: Iterable[Example | Mapping[str, Any]]) -> list[Example]:
    """Examples from rows: mappings with the columns of a data file, or examples, which stay as they are.

    Args:
        rows: Each has ``question`` and ``answer``, and may have ``image`` or ``images``, ``subject`` and ``id``, see
            :func:`kvw.read_examples`. A picture may also be a :class:`pathlib.Path` or a picture of Pillow, as the
            datasets of Hugging Face have it.

    Returns:
        One example for each row, in order.

    Raises:
        UserError: A row cannot be used; the message names it as ``example:1``, ``example:2`` and so on.
    """
    return [_example(row, number) for number, row in enumerate(rows, 1)]


def _example(row: object, number: int) -> Example:
    if isinstance(row, Example):
        return row
    where = f"{HERE}:{number}"
    if not isinstance(row, Mapping):
        raise UserError(
            f"{where} is no example.",
            found=type(row).__name__,
            do="give kvw.Example, or a mapping with 'question' and 'answer'",
        )
    columns = named(row, where)
    for column in IMAGE_COLUMNS:
        if column in columns:
            columns[column] = _plain(columns[column])
    (example,) = examples_in(columns, number, HERE)
    return example


def _plain(value: Any) -> Any:
    """Pictures as data files have them."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Image.Image):
        upright = ImageOps.exif_transpose(value)
        return png(upright if upright.mode in OF_PNG else upright.convert("RGB"))
    return value
