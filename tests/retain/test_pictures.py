"""Pictures that are drawn for models that take images."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from kvw.data import check_images
from kvw.retain.drawing import SIZE
from kvw.retain.pictures import PICTURES, picture_questions


@pytest.mark.thorough
def test_every_picture_is_another_and_drawn_the_same_every_time():
    questions = picture_questions()
    assert questions == picture_questions()
    assert 24 <= len(PICTURES) == len({one.images for one in questions})
    assert len({(one.question, one.images) for one in questions}) == len(questions)


@pytest.mark.thorough
def test_every_picture_has_one_or_two_questions_and_a_subject_of_its_own():
    questions = picture_questions()
    for number, (_, _, asked) in enumerate(PICTURES, start=1):
        own = [one for one in questions if one.metadata == {"source": "pictures", "subject": f"picture {number}"}]
        assert 1 <= len(own) <= 2
        assert [one.question for one in own] == list(asked)
        assert len({one.images for one in own}) == 1
    assert [one.identifier for one in questions] == [f"pictures:{place + 1}" for place in range(len(questions))]


@pytest.mark.thorough
def test_pictures_are_files_that_show_something():
    check_images([one.answered("x") for one in picture_questions()])
    for question in picture_questions():
        image = Image.open(io.BytesIO(question.images[0]))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))
        assert len(image.getcolors(SIZE * SIZE)) > 2


@pytest.mark.thorough
def test_what_is_drawn_has_the_colours_that_are_asked_for():
    questions = {one.question: one for one in picture_questions()}
    middle = SIZE // 2
    for question, channel in (
        ("Is the shape red or blue?", 2),
        ("What colour is the shape?", 0),
        ("What colour is the triangle?", 1),
    ):
        pixel = Image.open(io.BytesIO(questions[question].images[0])).getpixel((middle, middle))
        assert pixel.index(max(pixel)) == channel
