"""Heat maps: one pixel for each cell, image tokens put together, tokens that can be read."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image
from tests.pages.test_frame import EVIL, balanced

from kvw.pages.activations_page import activations_page
from kvw.pages.heat_map import MOST_IMAGE_COLUMNS, columns_of, heat_map, shown
from kvw.records.activations import Activations, LayerRatio, ReadExample


def example(images: int = 0) -> ReadExample:
    tokens = ["<s>", *["<image>"] * images, " Who", EVIL, "\n", " Ann"]
    classes = ["template", *["image"] * images, "question", "question", "answer", "template"]
    values = [9.0, *[1.0] * images, 1.0, 2.0, 4.0, 0.0]
    return ReadExample(
        tokens=tokens,
        classes=classes,
        mean={0: values, 3: [2 * one for one in values]},
        weighted={0: values, 3: values},
    )


def test_a_pixel_says_how_large_a_value_is_in_its_layer_the_first_token_aside() -> None:
    found = heat_map("Coefficients", example(), example().mean)
    picture = Image.open(io.BytesIO(base64.b64decode(found.picture.partition(",")[2])))
    assert picture.size == (5, 2)
    opacity = picture.getchannel("A")
    assert [opacity.getpixel((place, 0)) for place in range(5)] == [255, 64, 128, 255, 0]
    assert list(found.layers) == [0, 3]


def test_many_image_tokens_are_put_together_and_averaged() -> None:
    columns = columns_of(example(images=100))
    assert sum(one.kind == "image" for one in columns) == MOST_IMAGE_COLUMNS
    assert [one.tokens for one in columns][:2] == [(0, 1), (1, 10)]
    assert columns[-1].tokens == (104, 105)
    assert sum(last - first for first, last in (one.tokens for one in columns)) == 105


@pytest.mark.parametrize(("token", "text"), [(" Who", "Who"), ("\n", "↵"), ("x" * 30, "x" * 13 + "…")])
def test_tokens_can_be_read(token: str, text: str) -> None:
    assert shown(token) == text


def test_the_page_shows_ratios_and_maps_and_no_token_as_markup() -> None:
    ratios = [LayerRatio(layer=0, mean=1.2, weighted=None), LayerRatio(layer=3, mean=1.5, weighted=2.5)]
    found = Activations(model=EVIL, data="f.jsonl", questions=9, retain="", examples=[example(3)] * 2, ratios=ratios)
    text = activations_page(found)
    assert "Answers stand out most in layer 3." in text
    assert "2.5 times as large" in text
    assert text.count("data:image/png;base64,") == 4
    assert "<b onload" not in text
    assert balanced(text)
    bare = found.model_copy(update={"ratios": [LayerRatio(layer=0, mean=None, weighted=None)]})
    assert "Read 2 of 9 questions token by token." in activations_page(bare)
