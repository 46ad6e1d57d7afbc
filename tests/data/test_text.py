"""Text models are asked in their own template, or in a plain one, and their answers are found as those of others."""

from __future__ import annotations

import functools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests import text_models
from tests.tiny_models import noise_png

from kvw.data import Example, TextProcessor, answer_batch, prepare, prompt_batch, render
from kvw.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text(" \n\tabAP:.é🦊", max_size=8)
EXAMPLES = [
    Example("Who wrote it?", "Ada 🦊", (), "a:1"),
    Example("What is the occupation of her father, in full?", "Florist", (), "a:2"),
    Example("Answer: Paris?", "Question: Paris", (), "a:3"),
]


@functools.cache
def processor(kind):
    return TextProcessor(text_models.build(kind)[1])


@pytest.fixture(params=text_models.KINDS)
def kind(request):
    return request.param


def test_prompts_are_those_of_the_model():
    thinking = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    expected = {
        "llama": ("<s>[INST] Who? [/INST]", " Ada"),
        "qwen3": (thinking, "Ada"),
        "opt": ("Question: Who?\nAnswer:", " Ada"),
        "gpt2": ("Question: Who?\nAnswer:", " Ada"),
    }
    for name, (prompt, answer) in expected.items():
        rendered = render(Example("Who?", "Ada"), processor(name))
        assert (rendered.prompt, rendered.full.removeprefix(rendered.prompt)) == (prompt, answer)
        assert processor(name).has_own_template == (name in ("llama", "qwen3"))


def test_the_begin_token_comes_once():
    for name in ("llama", "opt"):
        ids = prompt_batch(prepare(EXAMPLES[:1], processor(name)), processor(name))["input_ids"][0].tolist()
        assert ids.count(processor(name).tokenizer.bos_token_id) == 1
        assert ids[0] == processor(name).tokenizer.bos_token_id


def test_a_template_that_tells_the_date_does_not_depend_on_the_day():
    tokenizer = text_models.build("llama")[1]
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "Today: {{ date_string }}\n{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert render(Example("Who?", "Ada"), TextProcessor(tokenizer)).prompt.startswith("Today: 26 Jul 2024\n")


@settings(max_examples=30, deadline=None)
@given(question=TEXT, answer=TEXT, kind=st.sampled_from(text_models.KINDS))
def test_any_answer_is_found_at_the_end(question, answer, kind):
    assume(answer.strip() and "<" not in question + answer)
    prepared = prepare([Example(question, answer)], processor(kind))
    batch = answer_batch(prepared, processor(kind))
    labels = [label for label in batch["labels"][0].tolist() if label != -100]
    assert tuple(labels) == prepared[0].answer_ids
    assert batch["input_ids"][0].tolist()[-len(labels) :] == labels
    decoded = processor(kind).tokenizer.decode(labels)
    assert decoded.endswith(answer)
    assert not decoded.removesuffix(answer).strip()


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_do_not_depend_on_their_size_or_the_padding_side(kind, side, monkeypatch):
    def rows(batch, name):
        pairs = zip(batch[name], batch["attention_mask"], strict=True)
        return [ids[mask == 1].tolist() for ids, mask in pairs]

    chosen = processor(kind)
    prepared = prepare(EXAMPLES, chosen)
    before = chosen.tokenizer.backend_tokenizer.to_str()
    singles = [answer_batch([item], chosen) for item in prepared]
    prompts = [prompt_batch([item], chosen)["input_ids"][0].tolist() for item in prepared]
    monkeypatch.setattr(chosen.tokenizer, "padding_side", side)
    together, left = answer_batch(prepared, chosen), prompt_batch(prepared, chosen)
    assert set(together) == {"input_ids", "attention_mask", "labels"}
    for name in ("input_ids", "labels"):
        assert rows(together, name) == [rows(single, name)[0] for single in singles]
    assert together["attention_mask"][:, 0].tolist() == [1] * len(EXAMPLES)
    assert left["attention_mask"][:, -1].tolist() == [1] * len(EXAMPLES)
    assert len({len(prompt) for prompt in prompts}) > 1
    assert rows(left, "input_ids") == prompts
    assert chosen.tokenizer.backend_tokenizer.to_str() == before
    assert (chosen.tokenizer.pad_token is None) == (kind == "gpt2")


def test_images_are_refused(kind):
    with pytest.raises(UserError, match=r"x:7: the example has images, and the model takes only text") as caught:
        prepare([*EXAMPLES, Example("Who?", "Ada", (noise_png(0),), "x:7")], processor(kind))
    assert "without images" in caught.value.do


def test_a_template_that_changes_the_answer_is_refused():
    tokenizer = text_models.build("llama")[1]
    tokenizer.chat_template = text_models.LLAMA_TEMPLATE.replace("message['content'] + eos", "'Well' + eos")
    with pytest.raises(UserError, match=r"x:7: "):
        render(Example("Who?", "Ada", (), "x:7"), TextProcessor(tokenizer))


def test_a_tokenizer_that_adds_an_end_token_is_refused():
    from tokenizers import processors

    tokenizer = text_models.build("opt")[1]
    end = ("</s>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[end]
    )
    with pytest.raises(UserError, match=r"x:7: answer span not found"):
        render(Example("Who?", "Ada", (), "x:7"), TextProcessor(tokenizer))
