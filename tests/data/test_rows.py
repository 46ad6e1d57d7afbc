"""Examples from rows that Python holds."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from tests.tiny_models import noise_png

from kvw.data import Example, load_image, read_examples
from kvw.data.rows import examples_of
from kvw.errors import UserError

ROW = {"question": "Who is this?", "answer": "Jody Vance"}


def test_a_row_is_the_example_of_the_same_line_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(noise_png(1))
    (tmp_path / "data.jsonl").write_text(
        '{"question": "Who is this?", "answer": "Jody Vance", "image": "a.png", "subject": "Jody", "id": "x"}'
    )
    monkeypatch.chdir(tmp_path)
    (found,) = examples_of([{**ROW, "image": "a.png", "subject": "Jody", "id": "x"}])
    (read,) = read_examples(tmp_path / "data.jsonl")
    assert (found.question, found.answer, found.metadata) == (read.question, read.answer, read.metadata)
    assert found.images[0].read_bytes() == read.images[0].read_bytes()
    assert (found.identifier, read.identifier) == ("example:x", "data.jsonl:x")


def test_examples_stay_as_they_are():
    example = Example("Who is this?", "Jody Vance", identifier="mine")
    found = examples_of([example, ROW])
    assert found[0] is example
    assert found[1].identifier == "example:2"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "HSV"])
def test_pictures_of_pillow_keep_their_pixels(mode):
    picture = Image.open(io.BytesIO(noise_png(2))).convert(mode)
    (example,) = examples_of([{**ROW, "images": (picture,)}])
    expected = picture.convert("RGB") if mode not in ("RGBA",) else picture.convert("RGBA").convert("RGB")
    assert load_image(example.images[0], "x").tobytes() == expected.tobytes()


def test_pictures_of_pillow_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.open(io.BytesIO(noise_png(3))).save(tmp_path / "turned.png", exif=exif)
    found = examples_of(
        [{**ROW, "image": what} for what in (Image.open(tmp_path / "turned.png"), tmp_path / "turned.png")]
    )
    opened = [load_image(example.images[0], "x") for example in found]
    assert opened[0].size == (40, 50)
    assert opened[0].tobytes() == opened[1].tobytes()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("text", "example:1 is no example"),
        ({"question": "Who?"}, "example:1: the answer is missing"),
        ({**ROW, "image": 3}, "example:1: an image is neither"),
        ({**ROW, "image": "nowhere.png"}, "does not exist"),
    ],
)
def test_what_is_no_example_is_refused(row, words):
    with pytest.raises(UserError, match=words):
        examples_of([row])
