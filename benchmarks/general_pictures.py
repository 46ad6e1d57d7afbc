"""Draw the pictures of ``--eval general-pictures`` and write their questions.

usage: python benchmarks/general_pictures.py
"""

from __future__ import annotations

import json

from kvw.data.general import GENERAL
from kvw.data.images import png
from kvw.retain import drawing
from kvw.retain.drawing import BLACK, BLUE, BROWN, GREEN, GREY, ORANGE, PINK, RED, SKY, WHITE, YELLOW, Drawing, Paper


def ring(paper: Paper) -> None:
    """A ring."""
    paper.disc(50, 50, 36, BLUE)
    paper.disc(50, 50, 22, WHITE)


def cross(paper: Paper) -> None:
    """A cross."""
    paper.box(40, 12, 60, 88, RED)
    paper.box(12, 40, 88, 60, RED)


def stripes(paper: Paper) -> None:
    """Three stripes."""
    for top, colour in ((10, GREEN), (40, YELLOW), (70, RED)):
        paper.box(10, top, 90, top + 20, colour)


def balloons(paper: Paper) -> None:
    """Two balloons on strings."""
    for x, y, colour in ((34, 34, RED), (66, 28, BLUE)):
        paper.line([(x, y), (50, 94)], GREY, 1)
        paper.disc(x, y, 16, colour, 20)


def snowman(paper: Paper) -> None:
    """A snowman with a hat."""
    for y, radius in ((74, 22), (44, 16), (22, 11)):
        paper.disc(50, y, radius, WHITE)
    paper.box(38, 8, 62, 13, BLACK)
    paper.box(43, 0, 57, 10, BLACK)
    for x in (46, 54):
        paper.disc(x, 20, 1.5, BLACK)
    paper.shape([(50, 23), (62, 26), (50, 27)], ORANGE)


def ladder(paper: Paper) -> None:
    """A ladder with five rungs."""
    for x in (34, 66):
        paper.line([(x, 6), (x, 94)], BROWN, 4)
    for y in (18, 34, 50, 66, 82):
        paper.line([(34, y), (66, y)], BROWN, 4)


def apple(paper: Paper) -> None:
    """An apple with a leaf."""
    paper.disc(50, 58, 28, RED)
    paper.line([(50, 34), (52, 18)], BROWN, 3)
    paper.disc(62, 22, 9, GREEN, 5)


def key(paper: Paper) -> None:
    """A key."""
    paper.disc(26, 50, 16, YELLOW)
    paper.disc(26, 50, 7, WHITE)
    paper.box(40, 46, 88, 54, YELLOW)
    paper.box(74, 54, 80, 64, YELLOW)
    paper.box(84, 54, 88, 62, YELLOW)


def cat(paper: Paper) -> None:
    """The head of a cat."""
    paper.shape([(24, 42), (26, 8), (48, 28)], GREY)
    paper.shape([(76, 42), (74, 8), (52, 28)], GREY)
    paper.disc(50, 54, 32, GREY)
    for x in (38, 62):
        paper.disc(x, 48, 6, GREEN)
        paper.disc(x, 48, 2.5, BLACK, 6)
    paper.shape([(46, 60), (54, 60), (50, 66)], PINK)
    for y in (60, 66):
        paper.line([(8, y), (34, 64)], BLACK, 1)
        paper.line([(92, y), (66, 64)], BLACK, 1)


def book(paper: Paper) -> None:
    """An open book."""
    paper.shape([(50, 24), (10, 16), (10, 76), (50, 86)], "ivory")
    paper.shape([(50, 24), (90, 16), (90, 76), (50, 86)], "wheat")
    for step in range(5):
        y = 30 + 9 * step
        paper.line([(16, y - 4), (45, y + 2)], GREY, 1)
        paper.line([(84, y - 4), (55, y + 2)], GREY, 1)


PICTURES: tuple[tuple[str, Drawing, str, tuple[tuple[str, str], ...]], ...] = (
    ("ring", ring, WHITE, (("What colour is the ring?", "The ring is blue."),)),
    ("cross", cross, WHITE, (("Which shape is this?", "This is a cross."), ("What colour is the shape?", "Red."))),
    (
        "stripes",
        stripes,
        WHITE,
        (
            ("How many stripes are there?", "There are three stripes."),
            ("What colour is the stripe in the middle?", "The stripe in the middle is yellow."),
        ),
    ),
    (
        "balloons",
        balloons,
        SKY,
        (
            ("How many balloons are there?", "There are two balloons."),
            ("What is in the picture?", "Two balloons are in the picture."),
        ),
    ),
    (
        "snowman",
        snowman,
        SKY,
        (("What is this?", "This is a snowman."), ("What colour is the hat?", "The hat is black.")),
    ),
    (
        "ladder",
        ladder,
        WHITE,
        (("What is this thing?", "This is a ladder."), ("How many rungs does it have?", "Five.")),
    ),
    ("apple", apple, WHITE, (("Which fruit is this?", "This is an apple."), ("What colour is the leaf?", "Green."))),
    (
        "key",
        key,
        WHITE,
        (("What can you open with this?", "You can open a door with this."), ("What is this?", "A key.")),
    ),
    (
        "cat",
        cat,
        WHITE,
        (("Which animal is this?", "This is a cat."), ("What colour are its eyes?", "Its eyes are green.")),
    ),
    ("book", book, SKY, (("What do people do with this?", "People read this."), ("What is this?", "This is a book."))),
    (
        "four",
        drawing.dots([(30, 30), (70, 30), (30, 70), (70, 70)], RED),
        WHITE,
        (("How many dots are there?", "Four."),),
    ),
    ("number", drawing.sign("42", BLUE), WHITE, (("Which number is on the sign?", "The number on the sign is 42."),)),
    ("word", drawing.sign("STOP", RED), WHITE, (("What does the sign say?", "The sign says STOP."),)),
    ("clock", drawing.clock(9), SKY, (("What time does the clock show?", "The clock shows nine o'clock."),)),
    (
        "bars",
        drawing.bars([("X", 70, GREEN), ("Y", 25, RED), ("Z", 50, BLUE)]),
        WHITE,
        (("Which bar is the shortest?", "Y is the shortest bar."), ("What colour is the tallest bar?", "Green.")),
    ),
    ("disc", drawing.disc(ORANGE), BLACK, (("What colour is the circle?", "The circle is orange."),)),
)
"""Name, drawing, colour of the paper, and questions with answers."""


def main() -> None:
    """Write the pictures and the questions beside each other."""
    file = GENERAL["general-pictures"]
    rows = []
    for name, draw, colour, asked in PICTURES:
        paper = Paper(colour)
        draw(paper)
        (file.parent / f"{name}.png").write_bytes(png(paper.finished()))
        rows += [{"image": f"{name}.png", "question": q, "answer": a, "subject": f"picture: {name}"} for q, a in asked]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
