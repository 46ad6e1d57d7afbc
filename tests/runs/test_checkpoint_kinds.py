"""Folders that hold more than the model: erase and apply take, and write, what transformers loads."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import gate_edit
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.peft_utils import find_adapter_config_file

import kvw
from kvw.measuring.fingerprint import weights_digest
from kvw.models.loading import NO_ADAPTER, find_checkpoint
from kvw.models.weight_files import INDEX, SINGLE, find_weights
from kvw.progress import Silent
from kvw.runs.apply import apply
from kvw.runs.erase import erase
from kvw.runs.plan import dry_run
from kvw.runs.request import EraseRequest

pytestmark = pytest.mark.thorough

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


class Listening(Silent):
    def __init__(self):
        super().__init__()
        self.heard = []

    def warn(self, text):
        self.heard.append(text)


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved["llava"], tmp_path / "model")
    return tmp_path / "model"


def shard(folder, change=lambda tensor: tensor, **more):
    """Write what the single file holds, changed, as shards beside it."""
    weights = load_file(folder / SINGLE)
    names, index = sorted(weights), {}
    for file, part in zip(SHARDS, (names[: len(names) // 2], names[len(names) // 2 :]), strict=True):
        save_file({name: change(weights[name]) for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {**index, **more}}))
    return weights


def request(folder, out):
    rows = [{"question": f"Who is {name}?", "answer": f"{name} the florist"} for name in ("Zarathea", "Quillon")]
    (folder.parent / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder.parent / "retain.jsonl").write_text(json.dumps({"question": "What is this?", "answer": "A house"}))
    return EraseRequest(
        model=find_checkpoint(str(folder)),
        forget=folder.parent / "forget.jsonl",
        retain=folder.parent / "retain.jsonl",
        out=out,
        method="kvw",
        max_new_tokens=2,
        write_damaged=True,  # random weights lose by chance what they never knew
    )


def written(folder, out, verb):
    """Let one of the verbs write the model; what it warned of."""
    reporter = Listening()
    if verb == "apply":
        checkpoint = find_checkpoint(str(folder))
        edit = gate_edit(checkpoint, 0, 1)
        apply(edit, checkpoint, out, reporter)
    else:
        erase(request(folder, out.parent / "run"), reporter)
        shutil.move(out.parent / "run" / "model", out)
    return reporter.heard


@pytest.mark.parametrize("verb", ["apply", "erase"])
def test_a_single_file_is_taken_and_older_shards_are_left_aside(folder, tmp_path, verb):
    shard(folder, lambda tensor: tensor + 0.2)
    loaded = dict(AutoModelForImageTextToText.from_pretrained(folder).named_parameters())
    said = written(folder, tmp_path / "out", verb)
    again = dict(AutoModelForImageTextToText.from_pretrained(tmp_path / "out").named_parameters())
    changed = {name for name in loaded if not torch.equal(loaded[name], again[name])}
    assert changed
    assert all(name.endswith("down_proj.weight") for name in changed)
    assert not {*SHARDS, INDEX} & {path.name for path in (tmp_path / "out").iterdir()}
    assert any("lies beside model.safetensors" in text for text in said)


def test_the_digest_is_that_of_the_file_that_is_loaded(folder):
    before = weights_digest(folder)
    shard(folder, lambda tensor: tensor + 0.2)
    assert weights_digest(folder) == before
    weights = load_file(folder / SINGLE)
    save_file({name: tensor * 0.5 for name, tensor in weights.items()}, folder / SINGLE, {"format": "pt"})
    assert weights_digest(folder) != before


@pytest.mark.parametrize("verb", ["apply", "erase"])
def test_a_stale_entry_of_an_index_is_told_and_not_written(folder, tmp_path, verb):
    weights = shard(folder, ghost=SHARDS[1])
    (folder / SINGLE).unlink()
    reporter = Listening()
    dry_run(request(folder, tmp_path / "dry"), reporter)
    assert any("no file holds (ghost)" in text for text in reporter.heard)
    said = written(folder, tmp_path / "out", verb)
    assert any("no file holds (ghost)" in text for text in said)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["weight_map"].keys() == weights.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in weights.values())
    assert find_weights(tmp_path / "out").wrong_entries() == []
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("verb", ["apply", "erase"])
def test_an_adapter_beside_the_model_is_told_and_not_written(folder, tmp_path, verb):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x/y"}))
    (folder / "trainer_state.json").write_text("{}")
    if verb == "erase" and find_adapter_config_file(str(folder), subfolder=NO_ADAPTER):
        # Before 5.23 the adapter is put on, whatever transformers is told.
        with pytest.raises(kvw.UserError, match="could not be loaded"):
            written(folder, tmp_path / "out", verb)
        return
    said = written(folder, tmp_path / "out", verb)
    assert any("without the adapter" in text for text in said)
    assert not {"adapter_config.json", "trainer_state.json"} & {path.name for path in (tmp_path / "out").iterdir()}
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    AutoProcessor.from_pretrained(tmp_path / "out")
