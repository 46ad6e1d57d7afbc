"""Whether a written checkpoint would load, without loading it."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from kvw.errors import UserError
from kvw.models import companions, meta_loading
from kvw.models.headers import read_header
from kvw.models.loading import Checkpoint, find_checkpoint, load_model
from kvw.models.reload_check import check_copy, check_reload
from kvw.models.weight_files import INDEX


@pytest.fixture
def written(tmp_path, two_shards):
    checkpoint = find_checkpoint(str(shutil.copytree(two_shards, tmp_path / "source")))
    return checkpoint, shutil.copytree(two_shards, tmp_path / "written")


def shard(folder, number=1):
    return folder / f"model-0000{number}-of-00002.safetensors"


def test_a_right_copy(written):
    check_reload(*written)


def test_transformers_is_asked_once_what_it_makes_of_files_that_are_alike(written):
    meta_loading._report_on.cache_clear()
    check_copy(written[0])
    check_reload(*written)
    assert meta_loading._report_on.cache_info().misses == 1


def test_another_configuration(written, saved):
    shutil.copyfile(saved["qwen2_vl"] / "config.json", written[1] / "config.json")
    with pytest.raises(UserError, match="would not load") as caught:
        check_reload(*written)
    assert "Qwen2VL" in caught.value.found


@pytest.mark.parametrize("change", ["name", "dtype", "shape"])
def test_another_tensor(written, change):
    weights = load_file(shard(written[1]))
    name, weight = max(weights.items(), key=lambda item: item[1].numel())
    del weights[name]
    weights |= {"name": {"other": weight}, "dtype": {name: weight.float()}, "shape": {name: weight.T.contiguous()}}[
        change
    ]
    save_file(weights, shard(written[1]), {"format": "pt"})
    with pytest.raises(UserError, match="would not load") as caught:
        check_reload(*written)
    assert name in caught.value.found


def test_an_index_that_names_what_is_not_there(written):
    index = json.loads((written[1] / INDEX).read_text())
    index["weight_map"]["ghost"] = shard(written[1]).name
    (written[1] / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="would not load") as caught:
        check_reload(*written)
    assert "ghost" in caught.value.found


def test_a_file_that_is_not_there(written):
    shard(written[1], 2).unlink()
    with pytest.raises(UserError, match="lacks weight files"):
        check_reload(*written)


@pytest.mark.parametrize(
    "content", [b"", b"short", (10**9).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"[1,]"]
)
def test_files_that_are_no_safetensors(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="no complete safetensors file"):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x"])
def test_a_file_of_another_length(saved, tmp_path, change):
    content = (saved["llava"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(change(content))
    with pytest.raises(UserError, match="no complete safetensors file"):
        read_header(tmp_path / "model.safetensors")


def test_a_header_is_what_the_library_reads(saved):
    weights = load_file(saved["llava"] / "model.safetensors")
    header = read_header(saved["llava"] / "model.safetensors")
    assert {name: tensor.shape for name, tensor in header.items()} == {n: tuple(w.shape) for n, w in weights.items()}
    content = (saved["llava"] / "model.safetensors").read_bytes()
    for name, tensor in header.items():
        assert content[tensor.begin : tensor.end] == weights[name].numpy().tobytes()


def test_the_source_may_be_of_any_name(written):
    check_reload(Checkpoint(written[0].folder, "owner/name", "abc"), written[1])
    check_reload(find_checkpoint(str(written[1])), written[1])


def test_an_index_that_leaves_a_tensor_out(written):
    index = json.loads((written[1] / INDEX).read_text())
    name = sorted(index["weight_map"])[0]
    del index["weight_map"][name]
    (written[1] / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="would not load") as caught:
        check_reload(*written)
    assert name in caught.value.found


def test_a_stale_entry_of_the_source_is_not_the_copys_fault(written):
    index = json.loads((written[0].folder / INDEX).read_text())
    index["weight_map"]["ghost"] = shard(written[0].folder).name
    (written[0].folder / INDEX).write_text(json.dumps(index))
    check_reload(*written)
    check_copy(written[0])


def test_a_copy_without_its_processor(written):
    (written[1] / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="would not load") as caught:
        check_reload(*written)
    assert "processor is absent" in caught.value.found


def test_an_adapters_configuration_beside_the_copy(written):
    (written[1] / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="would not load") as caught:
        check_reload(*written)
    assert "adapter_config.json" in caught.value.found


def test_a_configuration_of_other_shapes(written):
    config = json.loads((written[1] / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 128
    (written[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="would not load") as caught:
        check_reload(*written)
    assert "other parameters" in caught.value.found


def test_a_copy_is_tried_before_the_work_begins(written, monkeypatch):
    before = {path: path.read_bytes() for path in written[0].folder.iterdir()}
    check_copy(written[0])
    assert {path: path.read_bytes() for path in written[0].folder.iterdir()} == before
    monkeypatch.setattr(companions, "BELONGING", ("config.json",))  # as if the list lacked a tokenizer's file
    with pytest.raises(UserError, match="would not load"):
        check_copy(written[0])


def test_a_source_without_a_processor_is_copied_without_one(written):
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (written[0].folder / name).unlink()
    check_copy(written[0])


def test_a_source_whose_configuration_is_of_other_weights(written):
    config = json.loads((written[0].folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 3}
    (written[0].folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="lacks weights"):
        check_copy(written[0])
    config["text_config"] |= {"num_hidden_layers": 2, "vocab_size": 10**9}
    (written[0].folder / "config.json").write_text(json.dumps(config))
    for act in (check_copy, load_model):  # a vocabulary of that size would fill the memory
        with pytest.raises(UserError, match="other shapes") as caught:
            act(written[0])
        assert "1000000000" in caught.value.found


def test_no_content_of_weights_is_read(written, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr("safetensors.safe_open", refuse)
    monkeypatch.setattr("transformers.modeling_utils.safe_open", refuse)
    check_reload(*written)
