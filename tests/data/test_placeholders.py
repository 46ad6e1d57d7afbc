"""A placeholder for an image in a text is told, never asked: neither the model's own nor another family's."""

from __future__ import annotations

import json

import pytest
from tests import text_models, tiny_models
from tests.fixtures import built
from tests.program import assert_refused, run
from tests.real_processors import PROCESSORS

from kvw.data import Example, TextProcessor, render
from kvw.data.placeholders import placeholder_in
from kvw.errors import UserError
from kvw.evaluation.endpoint import EndpointModel
from kvw.evaluation.evaluation import evaluate_endpoint
from kvw.serving.conversation import Conversation, prompt_inputs
from kvw.serving.refusals import Refusal

PLACEHOLDERS = (
    "<image>",
    "<image 1>",
    "<image_2>",
    "<|image_1|>",
    "<|image|>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<|video_pad|>",
    "<image_soft_token>",
    "<start_of_image>",
    "<IMG_CONTEXT>",
    "<image_placeholder>",
    "<ImageHere>",
    "<|begin_of_image|>",
    "<|media_pad|>",
    "<fake_token_around_image>",
    "[IMG]",
)
PLAIN = (
    "<img>",
    "<video>",
    "<b>image</b>",
    "< image >",
    "image",
    "an <imagery>",
    "[IMAGE]",
    "<|im_end|>",
    "a<image",
    "|image|",
)


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_are_asked(text):
    assert placeholder_in(text) == ""
    assert placeholder_in(f"What is <image of a cat> {text}?") == ""


@pytest.mark.thorough
@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
@pytest.mark.parametrize("name", ["question", "answer"])
def test_every_family_refuses_every_placeholder(placeholder, name):
    texts = {"question": "Who?", "answer": "Ada", name: f"{placeholder}\nWho is this?"}
    processors = [TextProcessor(built_text()), *(built(family)[1] for family in tiny_models.FAMILIES)]
    for processor in processors:
        with pytest.raises(UserError, match=rf"x:3: the {name} contains a placeholder[\s\S]*remove it") as raised:
            render(Example(**texts, identifier="x:3"), processor)
        assert placeholder in raised.value.found


def built_text():
    return text_models.build("qwen3")[1]


def test_the_image_tokens_of_the_families_are_known():
    special = {token for entry in PROCESSORS.values() for token in entry.special_tokens}
    names = ("image", "image_pad", "img_context", "media_pad", "image_placeholder", "image_soft_token")
    stands_for_images = {token for token in special if token.strip("<|>[]").lower() in names}
    assert len(stands_for_images) > 4
    assert all(placeholder_in(token) == token for token in stands_for_images)


def test_a_server_and_an_endpoint_refuse_it_too():
    message = {"role": "user", "content": [{"type": "text", "text": "<|image_pad|> Who?"}]}
    with pytest.raises(Refusal, match="a placeholder for an image"):
        prompt_inputs(Conversation([message], ()), TextProcessor(built_text()))
    endpoint = EndpointModel("http://localhost:1/v1", "m")
    with pytest.raises(UserError, match="x:3: the question contains a placeholder for an image"):
        evaluate_endpoint(endpoint, {"x": [Example("<image>\nWho?", "Ada", (), "x:3")]})


@pytest.mark.thorough
def test_the_program_names_the_row(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text_models.save("llama", tmp_path / "model")
    rows = [{"question": question, "answer": "Ada"} for question in ("Who?", "<image>\nWho is this?")]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert_refused(capsys, run("evaluate", "model", "--data", "q.jsonl"), "q.jsonl:2", "'<image>'")
