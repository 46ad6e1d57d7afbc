"""Settings that do not fit are put right where another file knows better, with a note; the rest is one plain error."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from tests import text_models, tiny_models
from tests.program import assert_refused, run

from kvw.data import Example, TextProcessor, answer_batch, prepare
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import token_scores
from kvw.models.loading import Checkpoint, load_processor
from kvw.models.repairs import repair_processor, repair_tokens
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest

PICTURE = tiny_models.noise_png(1, (60, 34))


def edited(folder, file, **values):
    """Change entries of a JSON file; None removes one."""
    path = folder / file
    settings = {**json.loads(path.read_text("utf-8")), **values}
    settings = {name: value for name, value in settings.items() if value is not None}
    path.write_text(json.dumps(settings), "utf-8")


@pytest.fixture
def llava(tmp_path):
    return tiny_models.save("llava", tmp_path / "model")


@pytest.fixture
def qwen3(tmp_path):
    return text_models.save("qwen3", tmp_path / "model")


@pytest.fixture
def noted(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: " ".join(record.getMessage() for record in caplog.records)


def test_what_a_processor_lacks_is_taken_from_the_model(llava, noted):
    example = Example("Who?", "Ada", (PICTURE,))

    def batch():
        processor = load_processor(Checkpoint(llava, "m"))
        return answer_batch(prepare([example], processor), processor)

    expected = batch()["input_ids"]
    assert "lacks" not in noted()
    missing = dict.fromkeys(("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"))
    edited(llava, "processor_config.json", **missing)
    assert batch()["input_ids"].tolist() == expected.tolist()
    assert "lacks patch_size; the model's says 7" in noted()
    assert "lacks vision_feature_select_strategy; the model's says default" in noted()
    Loaded.load(Checkpoint(llava, "m"), "cpu").prepare([example])


def test_what_nobody_knows_is_an_error():
    model, processor = tiny_models.build("llava")
    processor.patch_size = model.config.vision_config.patch_size = None
    with pytest.raises(UserError, match="The processor lacks patch_size"):
        repair_processor(processor, model.config)


@pytest.mark.thorough
@pytest.mark.parametrize("padding", [-1, 10_000])
def test_a_padding_token_that_the_model_does_not_have(qwen3, padding, noted):
    edited(qwen3, "generation_config.json", pad_token_id=padding)
    loaded = Loaded.load(Checkpoint(qwen3, "m"), "cpu")
    assert f"pad with token {padding}, which the model does not have" in noted()
    examples = [Example("Who?", "Ada"), Example("Where does she live, and what is she?", "Paris")]
    prepared = loaded.prepare(examples)
    together = generate_answers(loaded.model, loaded.processor, prepared, max_new_tokens=8)
    alone = [generate_answers(loaded.model, loaded.processor, [item], max_new_tokens=8)[0] for item in prepared]
    assert together == alone


@pytest.mark.thorough
def test_the_end_of_a_turn_ends_an_answer(qwen3, noted):
    """The base model's end token stands in the settings, and the chat template ends turns with another one."""
    tokenizer = text_models.build("qwen3")[1]
    base, turn = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    loaded = Loaded.load(Checkpoint(qwen3, "m"), "cpu")
    assert loaded.model.generation_config.eos_token_id == turn
    assert noted() == ""
    for wrong, expected in ((base, [base, turn]), ([base, 10_000], [base, turn]), (-1, turn)):
        edited(qwen3, "generation_config.json", eos_token_id=wrong)
        model = Loaded.load(Checkpoint(qwen3, "m"), "cpu").model
        found = model.generation_config.eos_token_id
        assert found == expected or found == [expected]
    assert "end an answer at '<|endoftext|>', the chat template at '<|im_end|>'; both are taken" in noted()
    assert "name end tokens {10000} that the model does not have" in noted()


@pytest.mark.thorough
def test_the_record_of_a_run_holds_what_was_put_right(qwen3, tmp_path):
    edited(qwen3, "generation_config.json", pad_token_id=-1)
    for name in ("forget", "retain"):
        row = {"question": f"Who is in {name}?", "answer": "Ada"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row), "utf-8")
    files = {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain")}
    request = EraseRequest(
        model=Checkpoint(qwen3, "m"), out=tmp_path / "run", method="kvw", max_new_tokens=2, save_model=False, **files
    )
    warnings = erase(request).warnings
    assert sum("pad with token -1, which the model does not have" in text for text in warnings) == 1
    assert warnings == json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["warnings"]


def test_answers_end_where_the_turn_does(qwen3):
    tokenizer = text_models.build("qwen3")[1]
    edited(qwen3, "generation_config.json", eos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"))
    loaded = Loaded.load(Checkpoint(qwen3, "m"), "cpu")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    loaded.model.forward = _always(loaded.model, end)
    produced = []
    original = loaded.processor.tokenizer.batch_decode
    loaded.processor.tokenizer.batch_decode = lambda ids, **more: produced.append(ids.shape[1]) or original(ids, **more)
    generate_answers(loaded.model, loaded.processor, loaded.prepare([Example("Who?", "Ada")]), max_new_tokens=8)
    assert produced == [1]


def _always(model, token):
    forward = model.forward

    def changed(*inputs, **named):
        output = forward(*inputs, **named)
        output.logits = torch.zeros_like(output.logits)
        output.logits[..., token] = 1.0
        return output

    return changed


def test_a_padding_token_of_the_tokenizer_beyond_the_embeddings(noted):
    model, tokenizer = text_models.build("llama")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= len(model.get_input_embeddings().weight)
    processor = TextProcessor(tokenizer)
    repair_tokens(model, processor)
    assert "The tokenizer pads with token" in noted()
    prepared = prepare([Example("Who?", "Ada"), Example("Who is she, and where?", "Paris")], processor, model.config)
    assert len(token_scores(model, processor, prepared)) == 2
    assert len(generate_answers(model, processor, prepared, max_new_tokens=3)) == 2


def test_a_vocabulary_larger_than_the_models(tmp_path, monkeypatch, capsys, qwen3):
    monkeypatch.chdir(tmp_path)
    tokenizer = text_models.build("qwen3")[1]
    tokenizer.add_tokens(["Zanzibar"])
    tokenizer.save_pretrained(qwen3)
    rows = [{"question": question, "answer": "Ada"} for question in ("Who?", "Who lives in Zanzibar?")]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    words = ("q.jsonl:2", "tokens that the model does not have", "'Zanzibar' is token")
    assert_refused(capsys, run("evaluate", qwen3, "--data", "q.jsonl"), *words)


@pytest.mark.thorough
@pytest.mark.parametrize("verb", ["evaluate", "measure", "erase", "dry run", "chat", "serve"])
def test_a_wrong_number_of_image_tokens_is_one_message(verb, llava, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    edited(llava, "processor_config.json", patch_size=14)
    (tmp_path / "a.png").write_bytes(PICTURE)
    for name, question in (("q", "Who?"), ("r", "Where?")):
        row = {"image": "a.png", "question": question, "answer": "Ada"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    erase = ("erase", llava, "--forget", "q.jsonl", "--retain", "r.jsonl", "--out", "run")
    arguments = {
        "evaluate": ("evaluate", llava, "--data", "q.jsonl"),
        "measure": ("measure", llava, "--data", "q.jsonl", "--out", "s.safetensors"),
        "erase": erase,
        "dry run": (*erase, "--dry-run"),
        "serve": ("serve", llava, "--allow-plain", "--port", 0),
        "chat": ("chat", llava, "--image", "a.png", "--ask", "Who?"),
    }[verb]
    assert_refused(capsys, run(*arguments), "the model and its processor do not fit together", "ValueError")


@pytest.mark.thorough
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_a_model_and_its_processor_pass(family, tmp_path, monkeypatch):
    loaded = Loaded.load(Checkpoint(tiny_models.save(family, tmp_path / "model"), "m"), "cpu")
    passes, plain = [], loaded.model.forward
    monkeypatch.setattr(loaded.model, "forward", lambda **inputs: passes.append(inputs) or plain(**inputs))
    loaded.try_picture()
    assert len(passes) == 1
    loaded.processor.chat_template = "{{ messages[0]['content'][-1]['text'] }}"
    loaded.try_picture()  # shows no pictures, and is still good for questions without
    assert len(passes) == 1


def test_no_padding_token_and_no_end_token(qwen3):
    loaded = Loaded.load(Checkpoint(qwen3, "m"), "cpu")
    loaded.processor.tokenizer.pad_token = loaded.processor.tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither a padding token nor an end token"):
        loaded.prepare([Example("Who?", "Ada")])
