"""Questions about simple pictures, which kvw draws itself: for models that take images."""

from __future__ import annotations

from kvw.data.images import png
from kvw.retain import drawing
from kvw.retain.drawing import BLACK, BLUE, GREEN, ORANGE, RED, SKY, WHITE, YELLOW, Drawing, Paper
from kvw.retain.question import Question

WHAT = "What is in this picture?"
PICTURES: tuple[tuple[Drawing, str, tuple[str, ...]], ...] = (
    (drawing.disc(RED), WHITE, ("What shape is this?", "What colour is the shape?")),
    (drawing.square(BLUE), WHITE, ("Which shape do you see?", "Is the shape red or blue?")),
    (drawing.triangle(GREEN), WHITE, ("How many corners does this shape have?", "What colour is the triangle?")),
    (drawing.star(50, 52, 38, YELLOW), "midnightblue", ("Name the shape in the picture.", "What colour is behind it?")),
    (drawing.dots([(30, 30), (70, 36), (46, 72)], BLACK), WHITE, ("How many dots are there?",)),
    (drawing.dots([(18, 50), (50, 50), (82, 50), (34, 24), (66, 24)], ORANGE), WHITE, ("Count the dots.",)),
    (drawing.two_sizes, WHITE, ("Which circle is larger, the red one or the blue one?",)),
    (drawing.house, SKY, (WHAT, "What colour is the roof?")),
    (drawing.tree, SKY, ("What is drawn here?", "What colour are the leaves?")),
    (drawing.face(happy=True), WHITE, ("Is this face happy or sad?", "What do you see?")),
    (drawing.face(happy=False), WHITE, ("How does this face feel?",)),
    (drawing.sunny_day, SKY, ("What is the weather like in this picture?", "Describe the picture in one sentence.")),
    (drawing.night, "midnightblue", ("Is it day or night in this picture?", "What do you see in the sky?")),
    (drawing.number_table([(4, 7, 1), (9, 5, 2), (3, 8, 6)]), WHITE, ("Which number is in the middle of the table?",)),
    (drawing.sign("OPEN", GREEN), WHITE, ("What does the sign say?", "What colour is the sign?")),
    (drawing.arrow, WHITE, ("In which direction does the arrow point?",)),
    (drawing.clock(3), SKY, ("What time does the clock show?", WHAT)),
    (drawing.traffic_light, WHITE, ("Which light is on?", "Should a driver stop or go?")),
    (drawing.car, WHITE, (WHAT, "How many wheels can you see?")),
    (drawing.boat, SKY, ("What is on the water?", "Describe what you see.")),
    (drawing.flower, WHITE, ("What kind of thing is this?", "What colour are the petals?")),
    (drawing.fish, SKY, ("Which animal is this?",)),
    (drawing.umbrella, WHITE, ("What is this thing used for?", "What colour is it?")),
    (drawing.bars([("A", 30, RED), ("B", 62, BLUE), ("C", 44, GREEN)]), WHITE, ("Which bar is the tallest?",)),
    (drawing.cup, WHITE, ("What is this?", "Is the drink hot or cold?")),
    (drawing.person, WHITE, ("What is the person in the drawing doing?",)),
)
"""What is drawn, on paper of which colour, and what is asked about it."""


def picture_questions() -> list[Question]:
    """The questions, each with its picture as the bytes of a PNG file.

    One installation of Pillow draws the same bytes every time.
    """
    questions: list[Question] = []
    for number, (draw, colour, asked) in enumerate(PICTURES, start=1):
        paper = Paper(colour)
        draw(paper)
        picture = png(paper.finished())
        for one in asked:
            metadata = {"source": "pictures", "subject": f"picture {number}"}
            questions.append(Question(one, (picture,), f"pictures:{len(questions) + 1}", metadata))
    return questions
