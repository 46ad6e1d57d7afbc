"""Loading checkpoints that may be damaged, and writing them so that plain transformers reads them."""

from __future__ import annotations

import json
import resource
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from kvw.claim import new_directory
from kvw.errors import UserError
from kvw.models.finding import find_value_matrices
from kvw.models.loading import Checkpoint, find_checkpoint, load_model, load_processor, skeleton
from kvw.models.patching import save_checkpoint
from kvw.models.saving import check_disk_space, check_saved, equal_up_to_rounding
from kvw.models.stored import locate


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved["llava"], tmp_path / "llava")
    return tmp_path / "llava"


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def halved(_, weight):
    return weight * 0.5


def save(checkpoint, folder, change=halved, layer=1):
    model = skeleton(checkpoint)
    matrices = find_value_matrices(model)[layer : layer + 1]
    save_checkpoint(checkpoint.folder, folder, locate(model, matrices, checkpoint.folder), change)


@pytest.mark.thorough
def test_a_saved_model_is_an_ordinary_checkpoint(saved, family, tmp_path):
    checkpoint = find_checkpoint(str(saved[family]))
    (tmp_path / "model").mkdir()
    save(checkpoint, tmp_path / "model")
    model = load_model(checkpoint)
    matrix = find_value_matrices(model)[1]
    matrix.write(matrix.read() * 0.5)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype="auto")
    for (name, value), (_, expected) in zip(again.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name
    AutoProcessor.from_pretrained(tmp_path / "model")
    for path in checkpoint.folder.iterdir():
        before, after = path.read_bytes(), (tmp_path / "model" / path.name).read_bytes()
        if path.suffix != ".safetensors":
            assert before == after, path.name
        else:
            different = sum(one != other for one, other in zip(before, after, strict=True))
            assert 0 < different <= matrix.read().numel() * matrix.read().element_size()


def test_a_sharded_checkpoint_with_mixed_dtypes_keeps_every_other_byte(saved, tmp_path):
    """Two shards, one of them in half precision, a tensor nobody uses, and the same weights in another format."""
    weights = load_file(saved["llava"] / "model.safetensors")
    shutil.copytree(saved["llava"], tmp_path / "source", ignore=shutil.ignore_patterns("*.safetensors"))
    names = sorted(weights)
    shards = {
        "model-00001-of-00002.safetensors": {name: weights[name] for name in names[::2]},
        "model-00002-of-00002.safetensors": {name: weights[name].bfloat16() for name in names[1::2]},
    }
    shards["model-00001-of-00002.safetensors"]["model.rotary_emb.inv_freq"] = torch.ones(4)
    index = {name: file for file, tensors in shards.items() for name in tensors}
    (tmp_path / "source" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for file, tensors in shards.items():
        save_file(tensors, tmp_path / "source" / file, {"format": "pt"})
    (tmp_path / "source" / "model-f16.gguf").write_bytes(b"the knowledge in another format")
    (tmp_path / "source" / "consolidated.safetensors").write_bytes(b"and another")
    (tmp_path / "out").mkdir()
    save(find_checkpoint(str(tmp_path / "source")), tmp_path / "out")
    assert not (tmp_path / "out" / "model-f16.gguf").exists()
    assert not (tmp_path / "out" / "consolidated.safetensors").exists()
    changed = []
    for file, tensors in shards.items():
        after = load_file(tmp_path / "out" / file)
        assert {name: value.dtype for name, value in after.items()} == {n: v.dtype for n, v in tensors.items()}
        changed += [name for name in tensors if not torch.equal(tensors[name], after[name])]
    (name,) = changed
    assert name.endswith("language_model.model.layers.1.mlp.down_proj.weight")
    assert torch.equal(load_file(tmp_path / "out" / index[name])[name], shards[index[name]][name] * 0.5)


def test_a_matrix_that_the_files_do_not_hold(folder):
    change_weights(folder, lambda weights: weights.pop("language_model.model.layers.1.mlp.down_proj.weight"))
    model = skeleton(find_checkpoint(str(folder)))
    with pytest.raises(UserError, match="was not found in the files") as caught:
        locate(model, find_value_matrices(model), folder)
    assert "layers.1.mlp.down_proj" in caught.value.what


def test_a_matrix_that_two_files_hold(folder):
    name = "language_model.model.layers.1.mlp.down_proj.weight"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({name: weights[name]}, folder / "b.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": {**dict.fromkeys(weights, "a.safetensors"), name: "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = skeleton(find_checkpoint(str(folder)))
    with pytest.raises(UserError, match="is in several weight files"):
        locate(model, find_value_matrices(model), folder)


def test_what_was_written_is_compared_with_what_was_scored(saved, tmp_path):
    checkpoint = find_checkpoint(str(saved["llava"]))
    model = load_model(checkpoint)
    stored = locate(model, find_value_matrices(model)[1:2], checkpoint.folder)
    save_checkpoint(checkpoint.folder, tmp_path, stored, halved)
    with pytest.raises(UserError, match="is not the weight that was scored"):
        check_saved(tmp_path, stored)
    for entry in stored.values():
        entry.matrix.write(entry.matrix.read() * 0.5)
    check_saved(tmp_path, stored)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_only_rounding_may_tell_the_written_from_the_scored(dtype):
    """An accelerator adds up in another order than the CPU; here: exactly, rounded once."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 4096, generator=generator).to(dtype)
    weight[:, 7] *= 100
    patterns, filters = torch.randn(2, 4096, 8, generator=generator).unbind()

    def edited(exact, original=weight):
        columns = original.to(exact)
        return columns - 1e-4 * (columns @ patterns.to(exact)) @ filters.to(exact).T

    written, live = edited(torch.float32).to(dtype), edited(torch.float64).to(dtype)
    assert not torch.equal(written, live)
    assert equal_up_to_rounding(written, live)
    assert not equal_up_to_rounding(written, weight)
    damaged = live.clone()
    damaged[3, 7] *= 1.1
    assert not equal_up_to_rounding(written, damaged)
    coarse = weight.bfloat16()
    if dtype == torch.float32:
        assert equal_up_to_rounding(written, edited(torch.float32, coarse).bfloat16())
        assert not equal_up_to_rounding(written, coarse)


def test_files_may_be_finer_than_what_is_loaded(folder, tmp_path):
    """Files in float32 with a configuration that asks for bfloat16."""
    text = (folder / "config.json").read_text().replace('"dtype": "float32"', '"dtype": "bfloat16"')
    (folder / "config.json").write_text(text)
    checkpoint = find_checkpoint(str(folder))
    model = load_model(checkpoint)
    stored = locate(model, find_value_matrices(model)[1:2], checkpoint.folder)
    (entry,) = stored.values()
    assert entry.matrix.read().dtype == torch.bfloat16
    (tmp_path / "out").mkdir()
    gates = torch.linspace(0.1, 1.0, entry.matrix.width)
    save_checkpoint(checkpoint.folder, tmp_path / "out", stored, lambda _, weight: weight * gates)
    assert load_file(tmp_path / "out" / "model.safetensors")[entry.name].dtype == torch.float32
    with pytest.raises(UserError, match="is not the weight that was scored"):
        check_saved(tmp_path / "out", stored)
    entry.matrix.write((entry.matrix.read().float() * gates).bfloat16())
    check_saved(tmp_path / "out", stored)


@pytest.mark.parametrize("where", ["does/not/exist", "nobody/nothing", "three/part/name"])
def test_a_model_that_is_nowhere(where):
    with pytest.raises(UserError, match="There is no model"):
        find_checkpoint(where)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="without config"):
        find_checkpoint(str(tmp_path))


def test_records_never_name_a_folder_of_this_machine(folder):
    assert find_checkpoint(str(folder)).name == "llava"
    assert str(Checkpoint(folder, "owner/name", "abc")) == "owner/name@abc"


def test_weights_that_hold_nan(folder):
    change_weights(folder, lambda weights: weights["language_model.lm_head.weight"][0, 0].fill_(float("nan")))
    with pytest.raises(UserError, match="NaN or infinity") as caught:
        load_model(find_checkpoint(str(folder)))
    assert "lm_head" in caught.value.found


def test_missing_weights_are_not_made_up(folder):
    change_weights(folder, lambda weights: weights.pop("language_model.model.layers.0.mlp.up_proj.weight"))
    with pytest.raises(UserError, match="lacks weights") as caught:
        load_model(find_checkpoint(str(folder)))
    assert "layers.0.mlp.up_proj" in caught.value.found


def test_a_damaged_weight_file(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="could not be loaded"):
        load_model(find_checkpoint(str(folder)))


def test_a_configuration_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="could not be read"):
        skeleton(find_checkpoint(str(folder)))


def test_an_unknown_family(folder):
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "no_such_model"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no_such_model"):
        skeleton(find_checkpoint(str(folder)))


def test_code_in_a_checkpoint_is_never_run(folder, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('the code of the checkpoint was run')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError, match="could not be read"):
        skeleton(find_checkpoint(str(folder)))


def test_a_checkpoint_without_its_processor(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="processor"):
        load_processor(find_checkpoint(str(folder)))


def test_a_disk_without_room_is_noticed_beforehand(saved, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="no room"):
        check_disk_space(saved["llava"], tmp_path / "not" / "yet" / "there", "wait")


def test_a_disk_that_fills_up_while_writing_is_a_message(saved, tmp_path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        expected = pytest.raises(UserError, match=f"disk is full: {tmp_path / 'model'} ")
        with expected, new_directory(tmp_path / "model") as new:
            save(find_checkpoint(str(saved["llava"])), new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
