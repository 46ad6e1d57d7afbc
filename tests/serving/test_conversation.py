"""A served model is asked as a local one is."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tests import tiny_models
from tests.fixtures import built
from tests.text_models import build as build_text

from kvw.data import Example, TextProcessor, prepare
from kvw.data.batches import prompt_batch
from kvw.serving.chat_request import read_request
from kvw.serving.conversation import conversation, prompt_inputs
from kvw.serving.refusals import Refusal

A, B = (tiny_models.noise_png(seed) for seed in (1, 2))


def url(image, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def shown(image):
    return {"type": "image_url", "image_url": {"url": url(image)}}


def said(text):
    return {"type": "text", "text": text}


def read(*messages):
    return conversation(read_request(bytes_of(list(messages))).messages)


def bytes_of(messages):
    return json.dumps({"model": "m", "messages": messages}).encode()


def refused(*messages, processor=None):
    with pytest.raises(Refusal) as found:
        prompt_inputs(read(*messages), processor)
    assert found.value.status == 400
    return found.value.message


def assert_same(one, other):
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("images", [(), (A,), (A, B)])
def test_one_question_is_put_as_to_a_local_model(processor, images):
    parts = [*map(shown, images), said("Who is this?")]
    asked = prompt_inputs(read({"role": "user", "content": parts}), processor)
    assert_same(asked, prompt_batch(prepare([Example("Who is this?", "-", images)], processor), processor))


def test_text_alone_may_be_a_string(processor):
    plain = prompt_inputs(read({"role": "user", "content": "Who?"}), processor)
    assert_same(plain, prompt_inputs(read({"role": "user", "content": [said("Who?")]}), processor))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "opt", "gpt2"])
def test_text_models_are_asked_as_here(kind):
    processor = TextProcessor(build_text(kind)[1])
    asked = prompt_inputs(read({"role": "user", "content": "Who is this?"}), processor)
    assert_same(asked, prompt_batch(prepare([Example("Who is this?", "-")], processor), processor))
    turns = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."})
    assert "takes only text" in refused({"role": "user", "content": [shown(A), said("Q")]}, processor=processor)
    if kind in ("opt", "gpt2"):
        assert "no chat template" in refused(*turns, {"role": "user", "content": "Where?"}, processor=processor)
    else:
        prompt_inputs(read(*turns, {"role": "user", "content": "Where?"}), processor)


def test_a_conversation_reaches_the_model_in_its_order(processor):
    messages = (
        {"role": "user", "content": [shown(A), said("Who is Ann?")]},
        {"role": "assistant", "content": "A florist.", "refusal": None, "tool_calls": None},
        {"role": "user", "content": [said("And the other one"), shown(B), said("here?")]},
    )
    asked = read(*messages)
    assert asked.images == (A, B)
    inputs = prompt_inputs(asked, processor)
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    places = [text.index(words) for words in ("Who is Ann?", "A florist.", "And the other one", "here?")]
    assert places == sorted(places)
    swapped = prompt_inputs(replace(asked, images=(B, A)), processor)
    assert not torch.equal(inputs["pixel_values"], swapped["pixel_values"])


def test_instructions_reach_the_model():
    processor = built("qwen2_vl")[1]
    for role in ("system", "developer"):
        asked = read({"role": role, "content": "Be brief."}, {"role": "user", "content": "Who?"})
        text = processor.tokenizer.decode(prompt_inputs(asked, processor)["input_ids"][0])
        assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_what_a_template_leaves_out_is_refused():
    processor = built("qwen2_vl")[1]
    leaves_out = TextProcessor(build_text("llama")[1])
    leaves_out.chat_template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"})
    assert "does not show the text of the system" in refused(*messages, processor=leaves_out)
    assert "a placeholder of the model" in refused({"role": "user", "content": "<|image_pad|>"}, processor=processor)


def test_a_template_that_shows_no_images(llava_processor, monkeypatch):
    monkeypatch.setattr(llava_processor, "chat_template", "{{ messages[0]['content'][1]['text'] }}")
    words = refused({"role": "user", "content": [shown(A), said("Who?")]}, processor=llava_processor)
    assert "does not show every image" in words
    monkeypatch.setattr(llava_processor, "chat_template", "{{ raise_exception('only one turn') }}")
    assert "only one turn" in refused({"role": "user", "content": "Who?"}, processor=llava_processor)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "assistant", "content": "A"}, "last message must be the user's"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://h/a.png"}}]}, "'http://h/a"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}, "inside the req"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url(A)[:-3]}}]}, "not base64"),
        ({"role": "user", "content": [shown(b"no image")]}, "an image cannot be read"),
        ({"role": "user", "content": [shown(A[: len(A) // 2])]}, "an image cannot be read"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,\u00e9"}]},
            "not base64",
        ),
        ({"role": "user", "content": "\ud83d"}, "half of a surrogate pair"),
    ],
)
def test_messages_that_cannot_be_read(llava_processor, message, words):
    assert words in refused(message, processor=llava_processor)


def white(width, height):
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def refused_before_decoding(monkeypatch, *messages, **options):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    with pytest.raises(Refusal) as found:
        conversation(read_request(bytes_of(list(messages))).messages, **options)
    assert found.value.status == 400
    return found.value


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("size", "count", "place", "words"),
    [
        ((1, 65_500), 1, 0, "too long and narrow"),
        ((13_000, 13_000), 6, 0, "too many pixels"),
        ((7_000, 7_000), 2, 1, "more than 64 million pixels together"),
        ((4, 4), 4, 3, "more than 3 images"),
    ],
)
def test_images_are_bounded_before_they_are_decoded(monkeypatch, size, count, place, words):
    content = [*[shown(white(*size))] * count, said("Q")]
    refusal = refused_before_decoding(monkeypatch, {"role": "user", "content": content}, most_images=3)
    assert refusal.parameter == f"messages.0.content.{place}"
    assert words in refusal.message


def test_all_parts_together_are_bounded():
    message = {"role": "user", "content": [said("Q")] * 2}
    assert len(read(*[message] * 1024).messages) == 1024
    with pytest.raises(Refusal, match="2050 parts"):
        read(*[message] * 1025)


def test_refusals_are_the_assistants(processor):
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I may not say."}]}
    question = {"role": "user", "content": "Why?"}
    asked = read(question, refusal, question)
    assert asked.messages[1]["content"] == [{"type": "text", "text": "I may not say."}]
    assert "Only messages of the assistant" in refused({**refusal, "role": "user"})


def test_a_null_text_says_nothing(processor):
    nothing = {"type": "text", "text": None}
    asked = prompt_inputs(read({"role": "user", "content": [nothing]}), processor)
    assert_same(asked, prompt_inputs(read({"role": "user", "content": ""}), processor))


def test_images_belong_to_the_user(llava_processor):
    words = refused({"role": "system", "content": [shown(A)]}, {"role": "user", "content": "Q"})
    assert "Only messages of the user" in words
