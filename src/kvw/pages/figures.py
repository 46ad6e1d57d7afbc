"""Line charts and bar charts as data: ``figures.html`` draws them as SVG, in the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 190, 52, 8, 10, 38
"""Sizes of a chart and of its margins, in the units of the SVG."""


@dataclass(frozen=True)
class Series:
    """One line.

    Args:
        name: What it shows.
        kind: ``forget`` or ``keep``: its colour.
        values: Place on the x axis (0 is the first) and value.
        style: Empty for a plain line, ``dash`` or ``dots``.
    """

    name: str
    kind: str
    values: Sequence[tuple[int, float]]
    style: str = ""


@dataclass(frozen=True)
class LineChart:
    """Lines over places that are equally far apart.

    Args:
        title: Above it.
        places: Names of the places.
        series: The lines.
        across: What the places are.
        lowest, highest: Ends of the y axis; the upper one at least 1, the topmost value that is written beside it.
        digits: Digits of its percentages.
        picked: The place that is marked; None for none.
        limit: A value that is marked across; None for none.
    """

    title: str
    places: Sequence[str]
    series: Sequence[Series]
    across: str
    lowest: float = 0.0
    highest: float = 1.0
    digits: int = 0
    picked: int | None = None
    limit: float | None = None
    ticks: Sequence[float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ticks", [self.lowest + part * (1 - self.lowest) / 4 for part in range(5)])

    def x(self, place: int) -> float:
        """Horizontal position of a place, in the units of the SVG."""
        inner = WIDTH - LEFT - RIGHT
        return round(LEFT + inner * (place + 0.5) / len(self.places), 1)

    def y(self, value: float) -> float:
        """Vertical position of a value; what lies outside of the axis is put at its end."""
        inside = min(max(value, self.lowest), self.highest)
        share = (inside - self.lowest) / (self.highest - self.lowest)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def points(self, series: Series) -> str:
        """The points of a line, as SVG takes them."""
        return " ".join(f"{self.x(place)},{self.y(value)}" for place, value in series.values)

    @property
    def named(self) -> list[int]:
        """The places whose names are written: as many as there is room for, the marked one among them."""
        step = max(1, -(-len(self.places) // 12))
        return [place for place in range(len(self.places)) if place % step == 0 or place == self.picked]


@dataclass(frozen=True)
class BarChart:
    """One bar for each layer.

    Args:
        title: Above it.
        layers: Numbers of the layers, ascending.
        heights: Heights of the bars, at least 0.
        depths: How opaque each is, between 0 and 1.
        unit: What the heights are.
        limit: A height that is marked across; None for none.
    """

    title: str
    layers: Sequence[int]
    heights: Sequence[float]
    depths: Sequence[float]
    unit: str
    limit: float | None = None

    @property
    def highest(self) -> float:
        """The upper end of the axis: the largest height, or the limit; 1 if there is none."""
        return max([*self.heights, self.limit or 0.0], default=0.0) or 1.0

    @property
    def step(self) -> float:
        """How far apart two bars are."""
        return (WIDTH - LEFT - RIGHT) / max(len(self.layers), 1)

    def x(self, place: int) -> float:
        """Left edge of the bar at a place."""
        return round(LEFT + self.step * (place + 0.1), 1)

    def y(self, height: float) -> float:
        """Upper edge of a bar."""
        return round(HEIGHT - BOTTOM - height / self.highest * (HEIGHT - TOP - BOTTOM), 1)

    @property
    def named(self) -> list[int]:
        """The places whose layer is written below."""
        every = max(1, -(-len(self.layers) // 10))
        return list(range(0, len(self.layers), every))
