"""What is copied beside the weights: what belongs to the model, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tests.text_models import save as save_text_model
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.peft_utils import find_adapter_config_file

from kvw.errors import UserError
from kvw.models.companions import BELONGING, companions, copy_companions, left_aside
from kvw.models.loading import NO_ADAPTER, find_checkpoint, load_model
from kvw.models.weight_files import INDEX, SINGLE

ALIEN = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "trainer_state.json",
    "training_args.bin",
    "optimizer.pt",
    "forget.json",
    "samples.txt",
    "notes.md",
    "run.json",
    "model.safetensors.index.fp16.json",
    "pytorch_model.bin.index.json",
    "other/config.json",
    "other/tokenizer.json",
)


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved["llava"], tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_what_belongs_to_the_model_is_copied(folder, out):
    expected = names(folder) - {SINGLE}
    for name in ALIEN:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("secret")
    for name in (
        "LICENSE.txt",
        "modeling_own.py",
        "additional_chat_templates/tool.jinja",
        "qformer_tokenizer/vocab.txt",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("belongs")
        expected.add(name)
    copy_companions(folder, out)
    assert names(out) == expected


def test_every_vocabulary_of_transformers_belongs(tmp_path):
    files = set()
    for source in (Path(transformers.__file__).parent / "models").glob("*/tokenization_*.py"):
        found = re.search(r"VOCAB_FILES_NAMES = \{(.*?)\}", source.read_text("utf-8"), re.DOTALL)
        files |= set(re.findall(r':\s*"([^"]+)"', found.group(1))) if found else set()
    assert {"tokenizer.json", "spiece.model", "vocab.txt", "bpe.codes"} <= files
    for name in files:
        (tmp_path / name).write_text("")
    assert {path.name for path in companions(tmp_path)} == files


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json", "LICENSE", "qformer_tokenizer/vocab.txt"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, out, name):
    (tmp_path / "secret").write_text("secret")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is a link out of the folder") as caught:
        copy_companions(folder, out)
    assert name in caught.value.what
    assert names(out) == set()


def test_a_folder_that_is_a_link_out_of_the_folder_is_refused(folder, tmp_path, out):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "own.jinja").write_text("secret")
    (folder / "additional_chat_templates").symlink_to(tmp_path / "templates")
    with pytest.raises(UserError, match="is a link out of the folder"):
        copy_companions(folder, out)


def test_links_within_the_folder_and_into_the_hubs_cache_are_followed(folder, tmp_path, out):
    (folder / "LICENSE").write_text("free")
    (folder / "LICENSE.md").symlink_to("LICENSE")
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    (tmp_path / "models--owner--name" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in companions(folder):
        blob = tmp_path / "models--owner--name" / "blobs" / path.name
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    shutil.copyfile(folder / SINGLE, snapshot / SINGLE)
    copy_companions(snapshot, out)
    assert names(out) == names(folder) - {SINGLE}
    assert not any(path.is_symlink() for path in out.iterdir())
    assert (out / "LICENSE.md").read_text() == "free"


def test_a_linked_model_folder_is_no_link_out_of_itself(folder, tmp_path, out):
    (tmp_path / "link").symlink_to(folder)
    copy_companions(tmp_path / "link", out)
    assert names(out) == names(folder) - {SINGLE}


def shard(folder, **more):
    weights = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    save_file(weights, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
    weight_map = dict.fromkeys(weights, "model-00001-of-00001.safetensors") | more
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return weights


def test_a_right_index_is_copied_byte_for_byte(folder, out):
    shard(folder)
    copy_companions(folder, out)
    assert (out / INDEX).read_bytes() == (folder / INDEX).read_bytes()


def test_a_stale_entry_is_not_written(folder, out):
    weights = shard(folder, ghost="model-00001-of-00001.safetensors")
    copy_companions(folder, out)
    written = json.loads((out / INDEX).read_text())
    assert written["weight_map"] == dict.fromkeys(weights, "model-00001-of-00001.safetensors")
    assert written["metadata"]["total_size"] == sum(weight.nbytes for weight in weights.values())


def test_an_index_beside_a_single_file_is_not_copied(folder, out):
    (folder / INDEX).write_text('{"metadata": {}, "weight_map": {"a": "old.safetensors"}}')
    copy_companions(folder, out)
    assert not (out / INDEX).exists()


def test_an_index_of_another_name_is_copied_under_it(folder, out):
    shard(folder, ghost="model-00001-of-00001.safetensors")
    (folder / INDEX).rename(folder / "own.safetensors.index.json")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "own.safetensors.index.json"}))
    copy_companions(folder, out)
    assert "ghost" not in json.loads((out / "own.safetensors.index.json").read_text())["weight_map"]


@pytest.mark.thorough
def test_an_adapter_beside_the_weights_is_neither_loaded_nor_copied(folder, out):
    plain = load_model(find_checkpoint(str(folder)))
    adapted = get_peft_model(
        AutoModelForImageTextToText.from_pretrained(folder),
        LoraConfig(target_modules=["down_proj"], r=2, init_lora_weights=False),
    )
    adapted.save_pretrained(folder)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names(folder)
    if find_adapter_config_file(str(folder), subfolder=NO_ADAPTER):
        # Before 5.23 the adapter is put on, whatever transformers is told. It is no silent part of the model then.
        with pytest.raises(UserError, match="could not be loaded"):
            load_model(find_checkpoint(str(folder)))
        return
    again = load_model(find_checkpoint(str(folder)))
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in plain.named_parameters()]
    copy_companions(folder, out)
    shutil.copyfile(folder / SINGLE, out / SINGLE)
    AutoModelForImageTextToText.from_pretrained(out)
    AutoProcessor.from_pretrained(out)
    assert not any(name.startswith("adapter") for name in names(out))


def test_a_text_models_files_are_enough_for_its_tokenizer(tmp_path, out):
    save_text_model("llama", tmp_path / "model")
    copy_companions(tmp_path / "model", out)
    assert names(out) == names(tmp_path / "model") - {SINGLE}


def test_what_is_left_aside_is_told(folder):
    assert left_aside(folder) == []
    (folder / "adapter_config.json").write_text("{}")
    (folder / INDEX).write_text('{"metadata": {}, "weight_map": {"a": "old.safetensors"}}')
    shards, adapter = left_aside(folder)
    assert "beside model.safetensors" in shards
    assert "without the adapter" in adapter
    (folder / "adapter_config.json").unlink()
    shard(folder, ghost="model-00001-of-00001.safetensors")
    (stale,) = left_aside(folder)
    assert "no file holds (ghost)" in stale


def test_the_list_names_no_weights():
    assert not any(pattern.endswith((".safetensors", ".bin", ".index.json")) for pattern in BELONGING)
