"""Adapters and results as files."""

from __future__ import annotations

import builtins
import json

import pytest
import torch
from peft import PeftModel
from tests import text_models
from tests.gradient import FORGET, LORA, RETAIN, TEXT, changed, forget_by, fresh, sets, training, weights_of
from transformers import AutoModelForImageTextToText

from kvw.data.text import TextProcessor
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.methods.gradient import unlearn
from kvw.models.checkpoint import find_checkpoint
from kvw.training.adapters import Adapter, linear_names, merge_adapter
from kvw.training.loop import train
from kvw.training.losses import likelihood_loss
from kvw.training.objective import Objective, Term
from kvw.training.planting import finetune
from kvw.training.result import apply_result, save_model
from kvw.training.trainee import in_training


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_saved_result_makes_the_same_model_out_of_the_original(lora, tmp_path):
    model, result = forget_by("ga", lora=lora)
    result.save(tmp_path / "result")
    other, _ = fresh()
    apply_result(other, tmp_path / "result")
    assert changed(other, weights_of(model)) == set()
    record = json.loads((tmp_path / "result" / "training.json").read_text())
    assert record["method"] == "ga"
    assert record["changed"] == sorted(result.weights)
    assert record["history"][0]["forget"] == list(result.history[0].forget)
    assert record["settings"]["training"]["learning_rate"] == 1e-3
    with pytest.raises(UserError, match="not empty"):
        result.save(tmp_path / "result")
    result.save(tmp_path / "result", force=True)


def test_an_adapter_folder_is_one_that_peft_loads(tmp_path):
    model, result = forget_by("ga", lora=LORA)
    result.save(tmp_path / "adapter")
    base, _ = fresh()
    wrapped = PeftModel.from_pretrained(base, tmp_path / "adapter")
    merged = wrapped.merge_and_unload()
    assert changed(merged, weights_of(model)) == set()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert (config["r"], config["lora_alpha"]) == (3, 6)


def test_merging_adds_the_scaled_product(tmp_path):
    before = weights_of(fresh()[0])
    model, result = forget_by("ga", lora=LORA)
    name = "model.language_model.layers.2.self_attn.q_proj"
    a, b = (result.adapter[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
    expected = before[f"{name}.weight"] + (LORA.alpha / LORA.rank) * b @ a
    torch.testing.assert_close(model.state_dict()[f"{name}.weight"], expected)
    assert set(result.weights) == {
        key for key in before if ".layers." in key and "language" in key and key.endswith("proj.weight")
    }


@pytest.mark.thorough
def test_a_trained_model_is_an_ordinary_checkpoint(tmp_path):
    model, _ = forget_by("ga", lora=LORA)
    _, processor = fresh()
    save_model(model, processor, tmp_path / "model")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert changed(loaded, weights_of(model)) == set()
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_so_is_one_of_text_alone_with_its_tokenizer(tmp_path):
    model, tokenizer = text_models.build("llama")
    save_model(model, TextProcessor(tokenizer), tmp_path / "model")
    loaded = Loaded.load(find_checkpoint(tmp_path / "model"))
    assert loaded.processor.chat_template == tokenizer.chat_template
    assert loaded.processor.tokenizer("Where is it?")["input_ids"] == tokenizer("Where is it?")["input_ids"]


def test_results_of_another_model_are_refused(tmp_path):
    other, _ = fresh("qwen2_vl")
    for name, lora in (("full", None), ("adapter", LORA)):
        forget_by("ga", lora=lora)[1].save(tmp_path / name)
        with pytest.raises(UserError, match="not fit this Qwen2VL"):
            apply_result(other, tmp_path / name)
    with pytest.raises(UserError, match="not an adapter folder"):
        apply_result(other, tmp_path)
    (tmp_path / "weights.safetensors").write_text("no")
    with pytest.raises(UserError, match="cannot be read"):
        apply_result(other, tmp_path)


def test_a_device_without_room_for_an_adapter_is_no_mismatch(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("MPS backend out of memory")

    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(PeftModel, "from_pretrained", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        merge_adapter(fresh()[0], tmp_path)


def test_adapters_that_hold_nan_are_not_merged():
    model, processor = fresh()
    before = weights_of(model)

    def spoil(parameters):
        for parameter in parameters.values():
            parameter.fill_(float("nan"))

    objective = Objective(Term(likelihood_loss), None, finish=spoil)
    data = sets(processor)
    with (
        pytest.raises(UserError, match="could not be merged"),
        in_training(model, processor, training(lora=LORA), data) as trainee,
    ):
        train(trainee, objective, data, about={})
    assert changed(model, before) == set()
    assert not hasattr(model, "peft_config")


def test_an_adapter_is_on_the_named_maps_only_and_comes_off_without_a_trace():
    model, _ = fresh()
    before = weights_of(model)
    targets = linear_names(model, ("vision",), None)
    adapter = Adapter(model, targets, LORA, 0)
    assert {name.partition(".lora_")[0] for name in adapter.parameters} == set(targets)
    adapter.detach()
    assert changed(model, before) == set()


def test_without_peft_the_message_names_the_extra(monkeypatch):
    model, processor = fresh()
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "peft":
            raise ImportError("No module named 'peft'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'kvw\[train\]'"):
        unlearn(model, processor, FORGET, RETAIN, "ga", None, training(lora=LORA))


def test_weights_that_are_tied_are_saved_once(tmp_path):
    model, processor = fresh("qwen2_vl")
    model.lm_head.weight = model.get_input_embeddings().weight
    result = finetune(model, processor, TEXT, training())
    result.save(tmp_path / "tied")
    other, _ = fresh("qwen2_vl")
    other.lm_head.weight = other.get_input_embeddings().weight
    apply_result(other, tmp_path / "tied")
    assert changed(other, weights_of(model)) == set()
