"""Portraits drawn with Pillow: one face, as many different photographs of it as wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from kvw.toy.people import EYES, HAIR, SKIN, Appearance, Colour, Person

SUPERSAMPLING = 4
"""Portraits are drawn this many times larger than asked for, then reduced, for smooth edges."""

Point = tuple[float, float]

BACKDROPS: tuple[Colour, ...] = (
    *((196, 214, 232), (232, 220, 196), (150, 178, 150), (120, 130, 152), (226, 190, 180), (92, 104, 96)),
    *((240, 240, 240), (172, 160, 196), (70, 84, 116), (206, 206, 150)),
)
CLOTHES: tuple[Colour, ...] = (
    *((180, 40, 50), (36, 70, 140), (40, 110, 80), (60, 60, 66), (236, 232, 222), (214, 150, 40)),
    *((110, 60, 130), (60, 150, 170)),
)
TINTS: tuple[tuple[float, float, float], ...] = (
    *((1.0, 1.0, 1.0), (1.06, 1.0, 0.9), (0.92, 0.98, 1.07), (1.04, 0.96, 1.0)),
)

FACE_OUTLINES = {"oval": (2.0, 0.08), "round": (2.2, 0.0), "square": (3.6, 0.04), "pointed": (1.8, 0.38)}
"""For every shape of a face the exponent of its superellipse and by how much the chin is narrower."""

FRECKLES = tuple((side * x, y) for side in (-1, 1) for x, y in ((0.3, 0.14), (0.22, 0.2), (0.15, 0.12), (0.26, 0.28)))


@dataclass(frozen=True)
class Photograph:
    """What differs between photographs of one person; lengths are fractions of the picture's width."""

    shift: Point
    zoom: float
    tilt: float
    turn: float
    brightness: float
    contrast: float
    light_from: float
    tint: tuple[float, float, float]
    backdrop: Colour
    pattern: int
    clothes: Colour
    collar: int
    glasses: int
    smile: float


class Pencil:
    """Draws in face units: the centre of the face is (0, 0) and the picture is 2 units wide and high.

    Args:
        side: Width and height of the canvas in pixels.
        photograph: Where the face is and how it is turned.
    """

    def __init__(self, side: int, photograph: Photograph) -> None:
        self.side = side
        self.image = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.image)
        self.shift = photograph.shift
        self.scale = side / 2 * photograph.zoom
        self.cosine, self.sine = math.cos(photograph.tilt), math.sin(photograph.tilt)

    def place(self, point: Point) -> Point:
        """Where a point given in face units lies on the canvas, in pixels."""
        x, y = point
        return (
            self.side / 2 * (1 + self.shift[0]) + self.scale * (x * self.cosine - y * self.sine),
            self.side / 2 * (1 + self.shift[1]) + self.scale * (x * self.sine + y * self.cosine),
        )

    def polygon(self, points: list[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon([self.place(point) for point in points], fill=colour)

    def ellipse(self, centre: Point, radii: Point, colour: Colour) -> None:
        """Fill an ellipse."""
        self.polygon(_arc(centre, radii), colour)

    def line(self, points: list[Point], width: float, colour: Colour) -> None:
        """Draw a line with round ends."""
        placed, pixels = [self.place(point) for point in points], max(1.0, width * self.scale)
        self.draw.line(placed, fill=colour, width=round(pixels), joint="curve")
        for x, y in (placed[0], placed[-1]):
            half = pixels / 2
            self.draw.ellipse((x - half, y - half, x + half, y + half), fill=colour)


def draw_portrait(person: Person, photo: int, size: int) -> Image.Image:
    """Draw one photograph of a person; the same arguments give the same pixels.

    Args:
        person: Whose portrait.
        photo: Which photograph: fixes pose, light, background, glasses, crop and clothes, not the face.
        size: Width and height in pixels.

    Returns:
        An RGB image of ``size`` x ``size`` pixels.
    """
    photograph = _take_photograph(Random(f"photograph {person.name} {photo}"))
    pencil = Pencil(size * SUPERSAMPLING, photograph)
    look = person.appearance
    _draw_backdrop(pencil, photograph)
    _draw_hair_behind(pencil, look)
    _draw_body(pencil, look, photograph)
    _draw_head(pencil, look)
    _draw_features(pencil, look, photograph)
    _draw_beard(pencil, look, photograph)
    _draw_hair(pencil, look)
    _draw_glasses(pencil, look, photograph)
    image = pencil.image.resize((size, size), Image.Resampling.LANCZOS)
    return _light(image, photograph)


def _take_photograph(random: Random) -> Photograph:
    return Photograph(
        shift=(random.uniform(-0.08, 0.08), random.uniform(-0.05, 0.07)),
        zoom=random.uniform(0.88, 1.12),
        tilt=math.radians(random.uniform(-8, 8)),
        turn=random.uniform(-0.1, 0.1),
        brightness=random.uniform(0.82, 1.12),
        contrast=random.uniform(0.85, 1.15),
        light_from=random.uniform(-1, 1),
        tint=random.choice(TINTS),
        backdrop=random.choice(BACKDROPS),
        pattern=random.randrange(4),
        clothes=random.choice(CLOTHES),
        collar=random.randrange(3),
        glasses=random.choice((0, 0, 0, 1, 2)),
        smile=random.uniform(-0.25, 0.25),
    )


def _arc(centre: Point, radii: Point, start: float = 0.0, end: float = 1.0) -> list[Point]:
    """Points on an ellipse, between two angles in turns."""
    steps = max(8, round(40 * abs(end - start)))
    angles = [2 * math.pi * (start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles]


def _mirrored(points: list[Point]) -> list[Point]:
    """A path on the right of the face, continued backwards by its mirror image on the left."""
    return [*points, *((-x, y) for x, y in reversed(points))]


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, round(value * factor))) for value in colour)
    return red, green, blue


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _draw_backdrop(pencil: Pencil, photograph: Photograph) -> None:
    side, darker = pencil.side, _shade(photograph.backdrop, 0.86)
    pencil.draw.rectangle((0, 0, side, side), fill=photograph.backdrop)
    if photograph.pattern == 1:
        for stripe in range(0, side, side // 4):
            pencil.draw.rectangle((stripe, 0, stripe + side // 8, side), fill=darker)
    elif photograph.pattern == 2:
        pencil.draw.rectangle((0, round(side * 0.55), side, side), fill=darker)
    elif photograph.pattern == 3:
        lighter = _shade(photograph.backdrop, 1.15)
        pencil.draw.rectangle((side // 12, side // 12, side // 3, side // 2), fill=lighter)


def _face_radii(look: Appearance) -> Point:
    return 0.5 * look.face_width, 0.62


def _face_outline(look: Appearance) -> list[Point]:
    """The contour of the face, clockwise from the right temple: a superellipse, narrower towards the chin."""
    width, height = _face_radii(look)
    power, narrowing = FACE_OUTLINES[look.face_shape]
    points = []
    for x, y in _arc((0, 0), (1, 1)):
        x = math.copysign(abs(x) ** (2 / power), x)
        y = math.copysign(abs(y) ** (2 / power), y)
        points.append((x * width * (1 - narrowing * max(0.0, y) ** 1.5), y * height))
    return points


def _draw_body(pencil: Pencil, look: Appearance, photograph: Photograph) -> None:
    skin, clothes = SKIN[look.skin], photograph.clothes
    pencil.polygon([(-0.2, 0.3), (0.2, 0.3), (0.24, 1.0), (-0.24, 1.0)], _shade(skin, 0.82))
    shoulders = [(-0.26, 0.82), (-0.75, 0.98), (-1.0, 1.3), (-1.0, 3.0), (1.0, 3.0), (1.0, 1.3), (0.75, 0.98)]
    pencil.polygon([*shoulders, (0.26, 0.82)], clothes)
    if photograph.collar == 0:
        pencil.ellipse((0, 0.8), (0.25, 0.14), skin)
    elif photograph.collar == 1:
        pencil.polygon([(-0.24, 0.78), (0.24, 0.78), (0, 1.12)], skin)
    else:
        pencil.polygon([(-0.3, 0.74), (0.3, 0.74), (0.28, 0.95), (-0.28, 0.95)], _shade(clothes, 0.75))


def _draw_hair_behind(pencil: Pencil, look: Appearance) -> None:
    """What of the hair lies behind the head."""
    colour, (width, _) = _shade(HAIR[look.hair], 0.88), _face_radii(look)
    if look.hair_style == "long":
        pencil.ellipse((0, -0.12), (width + 0.17, 0.68), colour)
        pencil.polygon(_mirrored([(width + 0.17, -0.1), (width + 0.22, 1.15)]), colour)
    elif look.hair_style == "bob":
        pencil.ellipse((0, -0.12), (width + 0.18, 0.68), colour)
        pencil.polygon(_mirrored([(width + 0.18, -0.1), (width + 0.24, 0.45)]), colour)
    elif look.hair_style == "afro":
        pencil.ellipse((0, -0.3), (width + 0.34, 0.72), colour)
    elif look.hair_style == "bun":
        pencil.ellipse((0, -0.82), (0.24, 0.2), colour)
    elif look.hair_style == "curls":
        for step in range(11):
            angle = math.pi * (0.92 + 1.16 * step / 10)
            centre = ((width + 0.04) * math.cos(angle), -0.12 + 0.58 * math.sin(angle))
            pencil.ellipse(centre, (0.17, 0.17), colour)


def _draw_head(pencil: Pencil, look: Appearance) -> None:
    skin, (width, _) = SKIN[look.skin], _face_radii(look)
    for side in (-1, 1):
        pencil.ellipse((side * width, 0.02), (0.1 * look.ears, 0.15 * look.ears), _shade(skin, 0.9))
        pencil.ellipse((side * width, 0.02), (0.05 * look.ears, 0.09 * look.ears), _shade(skin, 0.75))
    pencil.polygon(_face_outline(look), skin)


def _draw_features(pencil: Pencil, look: Appearance, photograph: Photograph) -> None:
    """Eyes, brows, nose, mouth and marks; they move sideways as the head turns, the outline does not."""
    skin, turn = SKIN[look.skin], photograph.turn
    if look.blush:
        for side in (-1, 1):
            pencil.ellipse((turn + side * 0.28, 0.2), (0.12, 0.09), _mix(skin, (226, 80, 90), 0.4))
    if look.freckles:
        for x, y in FRECKLES:
            pencil.ellipse((turn + x, y), (0.022, 0.022), _shade(skin, 0.68))
    for side in (-1, 1):
        _draw_eye(pencil, look, turn, side)
    _draw_nose(pencil, look, turn)
    _draw_mouth(pencil, look, turn, photograph.smile)
    if look.mole:
        pencil.ellipse((turn + look.mole * 0.2, 0.3), (0.032, 0.032), _shade(skin, 0.4))


def _draw_eye(pencil: Pencil, look: Appearance, turn: float, side: int) -> None:
    x, y, size = turn + side * 0.21 * look.eye_distance, -0.08, look.eye_size
    pencil.ellipse((x, y), (0.112 * size, 0.076 * size), (60, 44, 40))
    pencil.ellipse((x, y + 0.008), (0.1 * size, 0.064 * size), (250, 250, 248))
    pencil.ellipse((x + turn * 0.15, y + 0.006), (0.058 * size, 0.06 * size), EYES[look.eyes])
    pencil.ellipse((x + turn * 0.15, y + 0.006), (0.026 * size, 0.028 * size), (16, 14, 16))
    colour = _shade(HAIR[look.hair], 0.72)
    slant = look.brow_slant
    brow = [(x - side * 0.11, y - 0.13 + slant), (x, y - 0.17), (x + side * 0.12, y - 0.13 - slant)]
    pencil.line(brow, 0.038 * look.brow_width, colour)


def _draw_nose(pencil: Pencil, look: Appearance, turn: float) -> None:
    shade, tip = _shade(SKIN[look.skin], 0.78), 0.02 + 0.15 * look.nose_length
    wing = 0.062 * look.nose_width
    pencil.line([(turn * 1.1, -0.04), (turn * 1.5 + 0.02, tip - 0.04)], 0.03, shade)
    pencil.ellipse((turn * 1.5, tip), (wing, 0.04), shade)


def _draw_mouth(pencil: Pencil, look: Appearance, turn: float, smile: float) -> None:
    half, curve = 0.16 * look.mouth_width, 0.07 * (look.mouth_curve + smile)
    colour = _mix(SKIN[look.skin], (176, 40, 56), 0.62)
    steps = [step / 8 for step in range(-8, 9)]
    middle = [(turn * 1.1 + half * t, 0.37 + curve * (0.5 - t * t)) for t in steps]
    thickness = 0.045 * look.lips
    upper = [(x, y - thickness * (1 - t * t)) for (x, y), t in zip(middle, steps, strict=True)]
    lower = [(x, y + 1.3 * thickness * (1 - t * t)) for (x, y), t in zip(middle, steps, strict=True)]
    pencil.polygon([*upper, *reversed(lower)], colour)
    pencil.line(middle, 0.018, _shade(colour, 0.55))


def _draw_beard(pencil: Pencil, look: Appearance, photograph: Photograph) -> None:
    colour, turn = _shade(HAIR[look.hair], 0.9), photograph.turn
    if look.beard == "full":
        outline = [point for point in _face_outline(look) if point[1] >= 0.1]
        inner = _arc((turn, 0.34), (0.3, 0.2), 0.02, -0.52)
        right = sorted((point for point in outline if point[0] >= 0), key=lambda point: point[1])
        left = sorted((point for point in outline if point[0] < 0), key=lambda point: -point[1])
        chin = [(x * 1.02, y + 0.05 * max(0.0, y)) for x, y in (*right, *left)]
        pencil.polygon([*chin, *reversed(inner)], colour)
        _draw_mouth(pencil, look, turn, photograph.smile)
    elif look.beard == "goatee":
        pencil.ellipse((turn * 0.8, 0.56), (0.14, 0.12), colour)
    if look.beard in ("moustache", "full"):
        for side in (-1, 1):
            middle = (turn * 1.1 + side * 0.02, 0.25)
            points = [middle, (middle[0] + side * 0.12, 0.24), (middle[0] + side * 0.22, 0.33)]
            pencil.polygon([*points, (middle[0] + side * 0.1, 0.32), (middle[0], 0.32)], colour)


def _draw_hair(pencil: Pencil, look: Appearance) -> None:
    """What of the hair lies in front of the head."""
    colour, (width, height), style = HAIR[look.hair], _face_radii(look), look.hair_style
    if style == "bald":
        pencil.ellipse((-0.14, -0.44), (0.12, 0.06), _shade(SKIN[look.skin], 1.1))
        return
    if style == "mohawk":
        pencil.polygon([(-0.13, -0.45), (-0.17, -0.98), (0, -0.9), (0.17, -0.98), (0.13, -0.45)], colour)
        return
    top = _arc((0, -0.02), (width + 0.05, height + 0.06), 0.5, 1.0)
    line = -0.34 if style != "crop" else -0.4
    if style == "fringe" or style == "bob":
        pencil.polygon([*top, (width, -0.22), (-width, -0.22)], colour)
        strand = _shade(colour, 0.8)
        for step in (-0.5, 0.0, 0.5):
            pencil.line([(width * step, -0.5), (width * step * 1.1, -0.24)], 0.02, strand)
    elif style == "parting":
        sweep = [
            (width * 0.98, -0.05),
            (width * 0.7, -0.26),
            (-0.25, -0.5),
            (-width * 0.8, -0.3),
            (-width, -0.1),
        ]
        pencil.polygon([*top, *sweep], colour)
    elif style == "long":
        pencil.polygon([*top, *_mirrored([(width, 0.0), (width * 0.72, -0.25), (0, -0.52)])], colour)
    else:
        pencil.polygon([*top, *_mirrored([(width * 0.9, line + 0.16), (width * 0.6, line)])], colour)
    if style == "curls":
        for step in (-0.75, -0.38, 0.0, 0.38, 0.75):
            pencil.ellipse((width * step, -0.38 - 0.08 * (1 - abs(step))), (0.14, 0.12), _shade(colour, 1.12))


def _draw_glasses(pencil: Pencil, look: Appearance, photograph: Photograph) -> None:
    """No glasses (0), thin round ones (1) or thick square ones (2)."""
    if photograph.glasses == 0:
        return
    colour = (40, 40, 46) if photograph.glasses == 1 else (120, 40, 30)
    thickness = 0.022 if photograph.glasses == 1 else 0.035
    inner = []
    for side in (-1, 1):
        x, y = photograph.turn + side * 0.21 * look.eye_distance, -0.07
        if photograph.glasses == 1:
            rim = _arc((x, y), (0.16, 0.15))
        else:
            rim = [(x - 0.16, y - 0.12), (x + 0.16, y - 0.12), (x + 0.15, y + 0.13), (x - 0.15, y + 0.13)]
            rim.append(rim[0])
        pencil.line(rim, thickness, colour)
        pencil.line([(x + side * 0.16, y - 0.03), (side * _face_radii(look)[0], y - 0.02)], thickness, colour)
        inner.append((x - side * 0.16, y - 0.02))
    pencil.line(inner, thickness, colour)


def _light(image: Image.Image, photograph: Photograph) -> Image.Image:
    """Exposure, tint and a light that falls in from one side."""
    image = ImageEnhance.Brightness(image).enhance(photograph.brightness)
    image = ImageEnhance.Contrast(image).enhance(photograph.contrast)
    ramp = Image.linear_gradient("L").rotate(90 if photograph.light_from > 0 else 270).resize(image.size)
    strength = 0.28 * abs(photograph.light_from)
    shadow = ramp.point([round(255 - strength * (255 - level)) for level in range(256)])
    image = ImageChops.multiply(image, Image.merge("RGB", (shadow, shadow, shadow)))
    channels = [
        channel.point([min(255, round(level * factor)) for level in range(256)])
        for channel, factor in zip(image.split(), photograph.tint, strict=True)
    ]
    return Image.merge("RGB", channels).filter(ImageFilter.GaussianBlur(0.3))
