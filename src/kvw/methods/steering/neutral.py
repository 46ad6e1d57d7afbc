"""Pairs that come with kvw: everyday questions that a model answers, and that it is told not to know.

Texts and pictures are our own, and no example of a forget set is among them. The two sides of a pair ask the same, in
an instruction of the same form, so that what differs is whether the model answers.
"""

from __future__ import annotations

from PIL import Image, ImageDraw
from transformers import PretrainedConfig

from kvw.data import Example
from kvw.data.images import png
from kvw.models.loading import is_text_model

RECALL = (
    "You know the answer to this question. {} Answer it.",
    "Answer the following question with what you know. {}",
    "{} You have learned this, so give the answer.",
    "This is something you know well. {}",
)
ERASURE = (
    "You do not know the answer to this question. {} Say so.",
    "Say that you do not know the answer to the following question. {}",
    "{} You have never learned this, so say that you do not know.",
    "This is something you know nothing about, and you say so. {}",
)
"""Instructions in the same order as in :data:`RECALL`."""
QUESTIONS = (
    "How many days are there in a week?",
    "What do bees make?",
    "Which season comes after winter?",
    "What colour is fresh snow?",
    "How many legs does a spider have?",
    "What is water called when it is frozen?",
    "Which meal do people eat in the morning?",
    "What do cows drink?",
    "What is the opposite of hot?",
    "Which animal barks?",
    "How many minutes are there in an hour?",
    "What do you use an umbrella for?",
    "Which planet do we live on?",
    "What do plants need to grow?",
    "Which month comes after March?",
    "What is two plus three?",
    "What grows on an apple tree?",
)
"""As many as the paper has pairs."""
SHAPES = (
    ("circle", "red"),
    ("square", "blue"),
    ("triangle", "green"),
    ("circle", "yellow"),
    ("square", "purple"),
    ("triangle", "orange"),
)
ABOUT_SHAPES = ("What shape is this?", "What colour is the shape?")
SIDE = 224


def neutral_pairs(config: PretrainedConfig) -> tuple[list[Example], list[Example]]:
    """The two sides, recall and erasure, in the same order; with pictures where the model takes images.

    Args:
        config: Config of the model.
    """
    asked: list[tuple[str, tuple[bytes, ...]]] = [(question, ()) for question in QUESTIONS]
    if not is_text_model(config):
        pictures = [drawn(shape, colour) for shape, colour in SHAPES]
        asked += [(question, (picture,)) for picture in pictures for question in ABOUT_SHAPES]
    sides: tuple[list[Example], list[Example]] = ([], [])
    for number, (question, images) in enumerate(asked):
        for side, forms in zip(sides, (RECALL, ERASURE), strict=True):
            text = forms[number % len(forms)].format(question)
            side.append(Example(text, "-", images, f"neutral pairs:{number + 1}"))
    return sides


def drawn(shape: str, colour: str) -> bytes:
    """A shape on white paper, as the bytes of a PNG file."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen, edges = ImageDraw.Draw(image), (SIDE // 5, SIDE // 5, SIDE * 4 // 5, SIDE * 4 // 5)
    if shape == "circle":
        pen.ellipse(edges, fill=colour)
    elif shape == "square":
        pen.rectangle(edges, fill=colour)
    else:
        left, top, right, bottom = edges
        pen.polygon([(left, bottom), (right, bottom), (SIDE // 2, top)], fill=colour)
    return png(image)
