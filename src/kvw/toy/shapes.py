"""Coloured shapes and counts: a general ability that has nothing to do with people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

SUPERSAMPLING = 3
"""Scenes are drawn this many times larger than asked for, then reduced, for smooth edges."""

Point = tuple[float, float]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (208, 32, 40),
    "blue": (36, 72, 208),
    "green": (24, 140, 56),
    "yellow": (244, 214, 32),
    "purple": (128, 40, 160),
    "orange": (244, 130, 24),
    "black": (20, 20, 20),
    "brown": (120, 72, 32),
}
SHAPES = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}
"""Every kind of shape and its plural."""

COUNTS = ("one", "two", "three", "four")
BACKDROPS: tuple[Colour, ...] = ((250, 250, 250), (240, 238, 228), (232, 240, 246), (240, 232, 238))
"""Paper on which every colour is darker, so that seeing a shape does not depend on its colour."""

SLOTS: tuple[Point, ...] = tuple((x, y) for y in (0.25, 0.75) for x in (0.25, 0.75))
"""Where shapes to be counted may lie, as fractions of the picture; each is moved a little from there."""

KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "colour": (
        (
            "What colour is the shape?",
            "Which colour does the shape have?",
            "Name the colour of the shape.",
            "In which colour is the shape painted?",
        ),
        ("What is the colour of the shape?", "Tell me the colour of the shape."),
    ),
    "shape": (
        (
            "What shape is this?",
            "Which shape is in the picture?",
            "Name the shape in the picture.",
            "What kind of shape do you see?",
        ),
        ("Which shape is this?", "Tell me what shape is in the picture."),
    ),
    "count": (
        (
            "How many {shapes} are there?",
            "How many {shapes} are in the picture?",
            "Count the {shapes}.",
            "What is the number of {shapes}?",
        ),
        ("How many {shapes} do you see?", "Count the {shapes} in the picture."),
    ),
}
"""What is asked, in training and in held-out phrasings."""


@dataclass(frozen=True)
class Scene:
    """One picture of equal shapes and what is asked about it.

    Args:
        identifier: Which scene, for example ``held-out 3``.
        kind: A key of ``KINDS``.
        shape: A key of ``SHAPES``.
        colour: A key of ``COLOURS``.
        count: How many shapes; 1 unless the question is about the count.
    """

    identifier: str
    kind: str
    shape: str
    colour: str
    count: int

    @property
    def answer(self) -> str:
        """The answer to the scene's question."""
        return {"colour": self.colour, "shape": self.shape, "count": COUNTS[self.count - 1]}[self.kind]

    def question(self, phrasing: int, *, held_out: bool) -> str:
        """The scene's question in one of the training or held-out phrasings (counted modulo their number)."""
        phrasings = KINDS[self.kind][held_out]
        return phrasings[phrasing % len(phrasings)].format(shapes=SHAPES[self.shape])


def make_scenes(count: int, seed: int, *, held_out: bool) -> list[Scene]:
    """Invent scenes, the kinds of question in turn; the same arguments give the same scenes.

    Args:
        count: Number of scenes.
        seed: Which scenes.
        held_out: Whether they are kept out of training; the two series are drawn independently of each other.
    """
    part = "held-out" if held_out else "training"
    random = Random(f"scenes {part} {seed}")
    scenes = []
    for index in range(count):
        kind = tuple(KINDS)[index % len(KINDS)]
        scenes.append(
            Scene(
                identifier=f"{part} {seed} {index}",
                kind=kind,
                shape=random.choice(tuple(SHAPES)),
                colour=random.choice(tuple(COLOURS)),
                count=random.randint(1, len(COUNTS)) if kind == "count" else 1,
            )
        )
    return scenes


def draw_scene(scene: Scene, size: int) -> Image.Image:
    """Draw a scene; the same arguments give the same pixels.

    Returns:
        An RGB image of ``size`` x ``size`` pixels.
    """
    random = Random(f"draw {scene.identifier}")
    side = size * SUPERSAMPLING
    image = Image.new("RGB", (side, side), random.choice(BACKDROPS))
    draw = ImageDraw.Draw(image)
    if scene.kind == "count":
        radius, slots = side * random.uniform(0.15, 0.19), random.sample(SLOTS, scene.count)
    else:
        radius, slots = side * random.uniform(0.26, 0.36), [(0.5, 0.5)]
    for x, y in slots:
        centre = (side * (x + random.uniform(-0.05, 0.05)), side * (y + random.uniform(-0.05, 0.05)))
        _draw_shape(draw, scene.shape, centre, radius, COLOURS[scene.colour], random.uniform(-0.15, 0.15))
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, centre: Point, radius: float, colour: Colour, angle: float
) -> None:
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "ring":
        draw.ellipse(box, outline=colour, width=round(radius * 0.4))
    else:
        points = [
            (x + radius * distance * math.sin(turn + angle), y - radius * distance * math.cos(turn + angle))
            for turn, distance in _corners(shape)
        ]
        draw.polygon(points, fill=colour)


def _corners(shape: str) -> list[Point]:
    """Corners as angles (radians, clockwise from the top) and distances from the centre (in radii)."""
    if shape == "square":
        return [((0.25 + 0.5 * step) * math.pi, 1.0) for step in range(4)]
    if shape == "triangle":
        return [(step * 2 * math.pi / 3, 1.0) for step in range(3)]
    if shape == "star":
        return [(step * math.pi / 5, 1.0 if step % 2 == 0 else 0.42) for step in range(10)]
    arm = math.atan(0.35)
    cross = []
    for step in range(4):
        middle = step * math.pi / 2
        cross += [(middle - arm, 1.0), (middle + arm, 1.0), (middle + math.pi / 4, 0.47)]
    return cross
