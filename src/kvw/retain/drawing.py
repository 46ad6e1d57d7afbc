"""Simple pictures drawn with Pillow: shapes, things and scenes that anybody can name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = 224
"""Width and height of a picture in pixels."""
SUPERSAMPLING = 3
"""Pictures are drawn this many times larger, then reduced, for smooth edges."""

Point = tuple[float, float]
Colour = str
"""A name that Pillow knows."""

BLACK, WHITE, RED, BLUE, GREEN, YELLOW = "black", "white", "crimson", "royalblue", "forestgreen", "gold"
ORANGE, BROWN, GREY, SKY, SKIN, PINK = "darkorange", "saddlebrown", "slategrey", "lightskyblue", "peachpuff", "hotpink"


class Paper:
    """A picture of 100 x 100 units, (0, 0) at the top left.

    Args:
        colour: Colour of the paper.
    """

    def __init__(self, colour: Colour = WHITE) -> None:
        self._unit = SIZE * SUPERSAMPLING / 100
        self._image = Image.new("RGB", (SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING), colour)
        self._draw = ImageDraw.Draw(self._image)

    def finished(self) -> Image.Image:
        """The picture in its final size, RGB."""
        return self._image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)

    def disc(self, x: float, y: float, radius: float, colour: Colour, height: float | None = None) -> None:
        """A filled circle around a point; with a height an ellipse."""
        tall = radius if height is None else height
        self._draw.ellipse(self._scaled([(x - radius, y - tall), (x + radius, y + tall)]), fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle."""
        self._draw.rectangle(self._scaled([(left, top), (right, bottom)]), fill=colour)

    def shape(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon(self._scaled(points), fill=colour)

    def line(self, points: Sequence[Point], colour: Colour = BLACK, width: float = 2) -> None:
        """A line through points."""
        self._draw.line(self._scaled(points), fill=colour, width=round(width * self._unit), joint="curve")

    def curve(self, x: float, y: float, radius: Point, angles: Point, colour: Colour = BLACK, width: float = 3) -> None:
        """A part of an ellipse between two angles, in degrees clockwise from the right."""
        box = self._scaled([(x - radius[0], y - radius[1]), (x + radius[0], y + radius[1])])
        self._draw.arc(box, *angles, fill=colour, width=round(width * self._unit))

    def text(self, x: float, y: float, height: float, text: str, colour: Colour = BLACK) -> None:
        """A text with its middle at a point."""
        font = ImageFont.load_default(height * self._unit)
        self._draw.text((x * self._unit, y * self._unit), text, fill=colour, font=font, anchor="mm")

    def _scaled(self, points: Iterable[Point]) -> list[Point]:
        return [(x * self._unit, y * self._unit) for x, y in points]


Drawing = Callable[[Paper], None]


def disc(colour: Colour) -> Drawing:
    """One large disc."""
    return lambda paper: paper.disc(50, 50, 32, colour)


def square(colour: Colour) -> Drawing:
    """One large square."""
    return lambda paper: paper.box(22, 22, 78, 78, colour)


def triangle(colour: Colour) -> Drawing:
    """One large triangle."""
    return lambda paper: paper.shape([(50, 18), (84, 78), (16, 78)], colour)


def star(x: float, y: float, radius: float, colour: Colour) -> Drawing:
    """A star with five points."""
    corners = [
        (x + size * math.sin(step * math.pi / 5), y - size * math.cos(step * math.pi / 5))
        for step in range(10)
        for size in (radius if step % 2 == 0 else radius * 0.42,)
    ]
    return lambda paper: paper.shape(corners, colour)


def dots(places: Sequence[Point], colour: Colour) -> Drawing:
    """Equal dots at some places."""

    def draw(paper: Paper) -> None:
        for x, y in places:
            paper.disc(x, y, 8, colour)

    return draw


def two_sizes(paper: Paper) -> None:
    """A small disc and a large one."""
    paper.disc(25, 55, 11, RED)
    paper.disc(67, 50, 27, BLUE)


def house(paper: Paper) -> None:
    """A house with a roof, a door and two windows, on grass."""
    paper.box(0, 80, 100, 100, GREEN)
    paper.box(24, 45, 76, 84, "wheat")
    paper.shape([(18, 46), (50, 16), (82, 46)], RED)
    paper.box(44, 60, 56, 84, BROWN)
    paper.box(29, 52, 39, 62, SKY)
    paper.box(61, 52, 71, 62, SKY)


def tree(paper: Paper) -> None:
    """A tree on grass."""
    paper.box(0, 84, 100, 100, "yellowgreen")
    paper.box(44, 50, 56, 88, BROWN)
    for x, y in ((34, 44), (66, 44), (50, 28), (50, 48)):
        paper.disc(x, y, 18, GREEN)


def face(*, happy: bool) -> Drawing:
    """A round face that smiles or does not."""

    def draw(paper: Paper) -> None:
        paper.disc(50, 50, 38, YELLOW)
        paper.disc(36, 42, 5, BLACK)
        paper.disc(64, 42, 5, BLACK)
        if happy:
            paper.curve(50, 52, (20, 18), (20, 160))
        else:
            paper.curve(50, 78, (20, 18), (200, 340))

    return draw


def sunny_day(paper: Paper) -> None:
    """The sun over hills."""
    paper.disc(74, 24, 12, YELLOW)
    for step in range(12):
        angle = step * math.pi / 6
        x, y = math.cos(angle), math.sin(angle)
        paper.line([(74 + 15 * x, 24 + 15 * y), (74 + 20 * x, 24 + 20 * y)], YELLOW, 2)
    paper.disc(25, 105, 45, GREEN)
    paper.disc(80, 110, 42, "yellowgreen")


def night(paper: Paper) -> None:
    """The moon and stars."""
    paper.disc(30, 34, 16, "lightyellow")
    paper.disc(37, 30, 14, "midnightblue")
    for x, y in ((62, 20), (80, 44), (56, 58), (24, 74), (84, 78)):
        star(x, y, 5, YELLOW)(paper)


def number_table(rows: Sequence[Sequence[int]]) -> Drawing:
    """Numbers in a square table of three rows."""

    def draw(paper: Paper) -> None:
        for step in range(4):
            paper.line([(14 + 24 * step, 14), (14 + 24 * step, 86)], BLACK, 1)
            paper.line([(14, 14 + 24 * step), (86, 14 + 24 * step)], BLACK, 1)
        for row, numbers in enumerate(rows):
            for column, number in enumerate(numbers):
                paper.text(26 + 24 * column, 26 + 24 * row, 15, str(number))

    return draw


def sign(text: str, colour: Colour) -> Drawing:
    """A sign on a post."""

    def draw(paper: Paper) -> None:
        paper.box(47, 50, 53, 98, GREY)
        paper.box(10, 20, 90, 60, colour)
        paper.text(50, 40, 20, text, WHITE)

    return draw


def arrow(paper: Paper) -> None:
    """An arrow to the right."""
    paper.shape([(12, 42), (56, 42), (56, 26), (88, 50), (56, 74), (56, 58), (12, 58)], BLUE)


def clock(hour: int) -> Drawing:
    """A clock that shows a full hour."""

    def draw(paper: Paper) -> None:
        paper.disc(50, 50, 42, BLACK)
        paper.disc(50, 50, 39, WHITE)
        for number in range(1, 13):
            angle = number * math.pi / 6
            paper.text(50 + 32 * math.sin(angle), 50 - 32 * math.cos(angle), 9, str(number))
        angle = hour * math.pi / 6
        paper.line([(50, 50), (50 + 16 * math.sin(angle), 50 - 16 * math.cos(angle))], BLACK, 3)
        paper.line([(50, 50), (50, 24)], BLACK, 2)

    return draw


def traffic_light(paper: Paper) -> None:
    """A traffic light at red."""
    paper.box(47, 70, 53, 100, GREY)
    paper.box(34, 6, 66, 78, BLACK)
    for y, colour in ((20, "red"), (42, "dimgrey"), (64, "dimgrey")):
        paper.disc(50, y, 9, colour)


def car(paper: Paper) -> None:
    """A car seen from the side."""
    paper.box(0, 76, 100, 100, GREY)
    paper.shape([(26, 46), (36, 30), (64, 30), (76, 46)], RED)
    paper.shape([(32, 45), (39, 34), (49, 34), (49, 45)], SKY)
    paper.shape([(52, 45), (52, 34), (62, 34), (69, 45)], SKY)
    paper.box(10, 46, 90, 66, RED)
    for x in (29, 71):
        paper.disc(x, 68, 10, BLACK)
        paper.disc(x, 68, 4, WHITE)


def boat(paper: Paper) -> None:
    """A sailing boat on water."""
    paper.box(0, 72, 100, 100, BLUE)
    paper.line([(50, 14), (50, 66)], BROWN, 2)
    paper.shape([(52, 16), (52, 58), (82, 58)], WHITE)
    paper.shape([(48, 24), (48, 58), (26, 58)], WHITE)
    paper.shape([(18, 64), (84, 64), (72, 80), (30, 80)], BROWN)


def flower(paper: Paper) -> None:
    """A flower with six petals."""
    paper.line([(50, 44), (50, 94)], GREEN, 3)
    paper.disc(60, 76, 10, GREEN, 4)
    for step in range(6):
        angle = step * math.pi / 3
        paper.disc(50 + 16 * math.cos(angle), 36 + 16 * math.sin(angle), 10, PINK)
    paper.disc(50, 36, 9, YELLOW)


def fish(paper: Paper) -> None:
    """A fish in water."""
    paper.shape([(72, 50), (92, 34), (92, 66)], ORANGE)
    paper.disc(46, 50, 32, ORANGE, 19)
    paper.disc(28, 45, 4, WHITE)
    paper.disc(28, 45, 2, BLACK)


def umbrella(paper: Paper) -> None:
    """An open umbrella."""
    paper.shape(
        [(50 + 38 * math.cos(step * math.pi / 24), 50 - 36 * math.sin(step * math.pi / 24)) for step in range(25)],
        "purple",
    )
    paper.line([(50, 50), (50, 82)], BLACK, 3)
    paper.curve(43, 82, (8.5, 8), (0, 180))


def bars(heights: Sequence[tuple[str, float, Colour]]) -> Drawing:
    """A bar chart with a letter under each bar."""

    def draw(paper: Paper) -> None:
        for place, (letter, height, colour) in enumerate(heights):
            left = 18 + 25 * place
            paper.box(left, 80 - height, left + 16, 80, colour)
            paper.text(left + 8, 89, 10, letter)
        paper.line([(10, 10), (10, 81), (94, 81)], BLACK, 1.5)

    return draw


def cup(paper: Paper) -> None:
    """A cup of something hot."""
    paper.curve(72, 60, (12, 11), (-90, 90), BLUE, 4)
    paper.shape([(24, 44), (74, 44), (68, 80), (30, 80)], BLUE)
    for x in (38, 50, 62):
        paper.curve(x, 34, (3, 5), (90, 270), GREY, 1.5)
        paper.curve(x, 24, (3, 5), (-90, 90), GREY, 1.5)


def person(paper: Paper) -> None:
    """A stick figure that waves."""
    paper.disc(50, 24, 11, SKIN)
    paper.line([(50, 35), (50, 66)], BLACK, 3)
    paper.line([(30, 56), (50, 42), (72, 26)], BLACK, 3)
    paper.line([(36, 92), (50, 66), (64, 92)], BLACK, 3)
