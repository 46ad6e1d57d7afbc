"""What does not fit into a model's context is told before any pass, with the numbers."""

from __future__ import annotations

import copy
import json

import pytest
from tests import text_models, tiny_models
from tests.program import assert_refused, run
from transformers import (
    BloomConfig,
    FalconConfig,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
)

from kvw.data import Example, TextProcessor, answer_batch, prepare
from kvw.data.batches import TOKENS_PER_IMAGE
from kvw.data.context import context_length
from kvw.errors import UserError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
LINEAR = {"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "original_max_position_embeddings": 64,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "rope_theta": 10000.0,
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(n_positions=100), 100),
        (OPTConfig(max_position_embeddings=100), 100),
        (LlamaConfig(max_position_embeddings=100), 100),
        (MistralConfig(max_position_embeddings=100, sliding_window=10), 100),
        (LlavaConfig(text_config=LlamaConfig(max_position_embeddings=100)), 100),
        (Qwen2Config(max_position_embeddings=40, rope_parameters=YARN), 128),
        (Qwen2Config(max_position_embeddings=128, rope_parameters=YARN), 128),
        (LlamaConfig(max_position_embeddings=2048, rope_parameters=LLAMA3), 2048),
        (LlamaConfig(max_position_embeddings=64, rope_parameters=LINEAR), 160),
        (Gemma3Config(text_config={"max_position_embeddings": 64, "sliding_window": 8}), 64),
        (FalconConfig(alibi=True, max_position_embeddings=64), None),
        (BloomConfig(), None),
        (MambaConfig(), None),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_context_of_every_kind_of_model(config, expected):
    assert context_length(config) == expected


def test_positions_of_each_kind_of_layer_count():
    config = LlamaConfig(max_position_embeddings=64)
    config.rope_parameters = {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default"}}
    assert context_length(config) == 160


def limited(family, length):
    model, processor = tiny_models.build(family)
    config = copy.deepcopy(model.config)
    config.get_text_config().max_position_embeddings = length
    return config, processor


@pytest.mark.thorough
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("images", [0, 2])
def test_image_tokens_count_to_the_last_one(family, images):
    example = Example("Who?", "Ada lives in Paris", (tiny_models.noise_png(1, (60, 34)),) * images, "x:3")
    _, processor = tiny_models.build(family)
    batch = answer_batch(prepare([example], processor), processor)
    tokens, answer = batch["input_ids"].shape[1], int((batch["labels"] != -100).sum())
    for limit, room in ((tokens, 0), (tokens + 5, 5)):
        prepare([example], *reversed(limited(family, limit)), new_tokens=answer + room)
    with pytest.raises(UserError) as raised:
        prepare([example], *reversed(limited(family, tokens - 1)))
    assert raised.value.what == "x:3: the prompt with its answer is longer than the model's context."
    prompt = tokens - answer
    words = f"{prompt} tokens of the prompt and {answer} of the answer, where the model takes {tokens - 1} in all"
    assert raised.value.found == words
    with pytest.raises(UserError) as raised:
        prepare([example], *reversed(limited(family, tokens)), new_tokens=answer + 1)
    assert f"an answer of up to {answer + 1} new tokens is longer than the model's context" in raised.value.what
    assert f"at most {answer} new tokens (--max-new-tokens)" in raised.value.do


def test_image_tokens_are_counted_where_a_processor_cannot_say():
    """The estimate of 576 tokens is far from the 16 that the picture has."""
    config, processor = limited("llava", 60)
    processor._get_num_multimodal_tokens = None
    example = Example("Who?", "Ada", (tiny_models.noise_png(1, (60, 34)),), "x:3")
    (item,) = prepare([example], processor, config)
    assert item.length > TOKENS_PER_IMAGE
    config.get_text_config().max_position_embeddings = 20
    with pytest.raises(UserError, match="x:3: the prompt with its answer is longer"):
        prepare([example], processor, config)


def test_a_placeholder_may_lie_beyond_the_vocabulary():
    """As in Llama 3.2 Vision: the picture takes its place, and no embedding of it is needed."""
    model, processor = tiny_models.build("llava")
    config = copy.deepcopy(model.config)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<picture>"]})
    config.get_text_config().vocab_size = processor.tokenizer.convert_tokens_to_ids("<picture>")
    processor.chat_template = processor.chat_template.replace("<image>", "<picture>")
    example = Example("Who?", "Ada", (tiny_models.noise_png(1, (60, 34)),), "x:3")
    processor.image_token = "<picture>"
    assert len(prepare([example], processor, config)) == 1
    config.get_text_config().vocab_size = 100
    with pytest.raises(UserError, match="x:3: the tokenizer has tokens that the model does not have"):
        prepare([example], processor, config)


def test_a_picture_that_cannot_be_decoded_is_left_to_others():
    config, processor = limited("llava", 100)
    broken = tiny_models.noise_png(1, (60, 34))[:200]
    example = Example("Who?", "Ada", (broken,), "x:3")
    assert [item.example for item in prepare([example], processor, config, new_tokens=40)] == [example]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("verb", ["evaluate", "measure", "erase", "dry run"])
def test_every_verb_tells_it_before_any_pass(kind, verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text_models.save(kind, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    name = "n_positions" if kind == "gpt2" else "max_position_embeddings"
    assert config[name] == 512
    rows = {"forget": ("What does it say?", "The florist lives in Paris. " * 200), "retain": ("Who?", "Ada")}
    for name, (question, answer) in rows.items():
        row = {"question": question, "answer": answer}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    erase = ("erase", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "run")
    arguments = {
        "evaluate": ("evaluate", "model", "--data", "forget.jsonl"),
        "measure": ("measure", "model", "--data", "forget.jsonl", "--out", "s.safetensors"),
        "erase": erase,
        "dry run": (*erase, "--dry-run"),
    }[verb]
    assert_refused(capsys, run(*arguments), "forget.jsonl:1", "longer than the model's context", "takes 512 in all")


def test_new_tokens_beyond_the_context_are_refused_and_not_an_error_of_torch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text_models.save("gpt2", tmp_path / "model")
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "Who?", "answer": "Ada"}) + "\n", "utf-8")
    code = run("evaluate", "model", "--data", "q.jsonl", "--max-new-tokens", 510)
    assert_refused(capsys, code, "q.jsonl:1", "up to 510 new tokens", "--max-new-tokens")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("steering", ("--set", "pairs=forget")),
        ("steering", ("--set", "pairs=forget", "--dry-run")),
        ("idk-nll", ()),
        ("idk-dpo", ()),
    ],
)
def test_a_refusal_that_does_not_fit_is_told_before_any_pass(method, more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = text_models.build("gpt2")
    text_models.save("gpt2", tmp_path / "model")
    monkeypatch.setattr("kvw.runs.erase.evaluate", None)
    (shortest,) = prepare([Example("Who?", "Ada")], TextProcessor(tokenizer))
    question = "Who?" + "?" * (model.config.n_positions - shortest.length - 2)
    (fits,) = prepare([Example(question, "Ada")], TextProcessor(tokenizer), model.config)
    assert fits.length > model.config.n_positions - 10
    for name, text in (("forget", question), ("retain", "Where?")):
        rows = [{"question": text, "answer": answer} for answer in ("Ada", "Bob")]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    erase = ("erase", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "run")
    code = run(*erase, "--method", method, "--max-new-tokens", 1, "--retain-sources", "none", *more)
    assert_refused(capsys, code, "forget.jsonl:1", "longer than the model's context", "takes 512 in all")


def test_no_configuration_no_limit():
    processor = TextProcessor(text_models.build("gpt2")[1])
    assert len(prepare([Example("Who?", "Ada " * 1000)], processor)) == 1
