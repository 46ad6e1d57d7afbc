"""Heat maps of layers by tokens: a picture with one pixel for each cell, and what ``figures.html`` writes beside it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image

from kvw.records.activations import ReadExample

MOST_IMAGE_COLUMNS = 12
"""Most columns that image tokens which follow one another are averaged into."""
LONGEST_TOKEN = 14
CELL, LEFT, TOP, BOTTOM = 13, 34, 14, 84
"""Width of a column, and the margins, in the units of the SVG."""
LOWEST, HIGHEST, USUAL = 7, 14, 180
"""Height of a row at least and at most, and of all rows between."""
LINE = 13
"""Numbers of layers are so far apart at least."""


@dataclass(frozen=True)
class Column:
    """A token, or several image tokens.

    Args:
        text: What is written below it.
        kind: Its class.
        tokens: First and last token, the last not included.
    """

    text: str
    kind: str
    tokens: tuple[int, int]


@dataclass(frozen=True)
class HeatMap:
    """Cells of one example.

    Args:
        title: Above it.
        columns: The tokens.
        layers: Numbers of the layers, ascending: the first is at the bottom.
        picture: A PNG as a data URI: as wide as there are columns, as high as there are layers. How opaque a pixel is
            says how large the value is, in each layer from 0 to the largest of all but the first token.
    """

    title: str
    columns: Sequence[Column]
    layers: Sequence[int]
    picture: str

    @property
    def width(self) -> int:
        """Width of the SVG."""
        return LEFT + CELL * len(self.columns) + 4

    @property
    def below(self) -> int:
        """Where the cells end."""
        return TOP + min(max(USUAL, LOWEST * len(self.layers)), HIGHEST * len(self.layers))

    @property
    def height(self) -> int:
        """Height of the SVG."""
        return self.below + BOTTOM

    @property
    def named(self) -> list[tuple[int, float]]:
        """The layers that are named, with their place."""
        step = (self.below - TOP) / len(self.layers)
        every = math.ceil(LINE / step)
        return [
            (layer, round(self.below - step * (place + 0.5) + 4, 1))
            for place, layer in enumerate(self.layers)
            if place % every == 0
        ]


def heat_map(title: str, example: ReadExample, values: Mapping[int, Sequence[float]]) -> HeatMap:
    """The heat map of one example.

    Args:
        title: Above it.
        example: Its tokens and their classes.
        values: ``example.mean`` or ``example.weighted``.
    """
    columns, layers = columns_of(example), sorted(values)
    image = Image.new("RGBA", (len(columns), len(layers)))
    for row, layer in enumerate(reversed(layers)):
        means = [sum(values[layer][first:last]) / (last - first) for first, last in (one.tokens for one in columns)]
        # The first token has activations of a size of its own in many models.
        largest = max(means[1:], default=means[0]) or 1.0
        for place, value in enumerate(means):
            image.putpixel((place, row), (180, 69, 31, round(255 * min(1.0, value / largest))))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return HeatMap(title, columns, layers, f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def columns_of(example: ReadExample) -> list[Column]:
    """One column for each token; runs of image tokens are put together."""
    columns: list[Column] = []
    for kind, group in groupby(range(len(example.tokens)), key=lambda place: example.classes[place]):
        places = list(group)
        size = -(-len(places) // MOST_IMAGE_COLUMNS) if kind == "image" else 1
        for first in range(places[0], places[-1] + 1, size):
            last = min(first + size, places[-1] + 1)
            columns.append(Column("" if kind == "image" else shown(example.tokens[first]), kind, (first, last)))
    return columns


def shown(token: str) -> str:
    """A token as it can be read: white space is seen, and what is long is cut."""
    text = token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}").strip(" ")
    return text if len(text) <= LONGEST_TOKEN else f"{text[: LONGEST_TOKEN - 1]}\N{HORIZONTAL ELLIPSIS}"
