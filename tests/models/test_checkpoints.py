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

from kvw.errors import UserError
from kvw.files import new_directory
from kvw.models.families import find_value_matrices
from kvw.models.loading import Checkpoint, find_checkpoint, load_model, load_processor, skeleton
from kvw.models.saving import check_disk_space, save_checkpoint, tensor_shapes


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved["llava"], tmp_path / "llava")
    return tmp_path / "llava"


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "qwen2_5_vl"])
def test_a_saved_model_is_an_ordinary_checkpoint(saved, family, tmp_path):
    checkpoint = find_checkpoint(str(saved[family]))
    model = load_model(checkpoint)
    with torch.no_grad():
        find_value_matrices(model)[1].module.weight.mul_(0.5)
    (tmp_path / "model").mkdir()
    save_checkpoint(model, checkpoint.folder, tmp_path / "model")

    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype="auto")
    for (name, value), (_, expected) in zip(again.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name
    AutoProcessor.from_pretrained(tmp_path / "model")
    for path in checkpoint.folder.iterdir():
        if path.suffix != ".safetensors":
            assert (tmp_path / "model" / path.name).read_bytes() == path.read_bytes(), path.name
    before, after = load_file(checkpoint.folder / "model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == 1
    assert changed[0].endswith("layers.1.mlp.down_proj.weight")


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


def test_an_unknown_family_is_refused_before_any_weight_is_read(folder):
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "no_such_model"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no_such_model"):
        load_model(find_checkpoint(str(folder)))


def test_a_checkpoint_without_its_processor(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="processor"):
        load_processor(find_checkpoint(str(folder)))


def test_a_disk_without_room_is_noticed_beforehand(llava, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="no room"):
        check_disk_space(llava, tmp_path / "not" / "yet" / "there")


def test_a_disk_that_fills_up_while_writing_is_a_message(llava, saved, tmp_path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        expected = pytest.raises(UserError, match=f"disk is full: {tmp_path / 'model'} ")
        with expected, new_directory(tmp_path / "model") as new:
            save_checkpoint(llava, saved["llava"], new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_shapes_are_read_from_headers(folder):
    shapes = tensor_shapes(folder)
    assert shapes == {name: tuple(value.shape) for name, value in load_file(folder / "model.safetensors").items()}
