"""Adapters for vLLM and SGLang, read by the rules of these engines."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from safetensors.torch import load_file
from tests.batches import logits, text_batch
from tests.edits.test_low_rank import low_rank_edit
from tests.fixtures import built

import kvw
from kvw.edits import GateEdit, export_lora
from kvw.edits.adapters import WEIGHTS
from kvw.edits.served_adapters import RANKS, served
from kvw.models.finding import find_value_matrices

BATCH = text_batch(2, 10, 3, seed=0)


def engine_model(model, folder):
    """The model with an adapter as the engines put it on: what they read of it, and nothing else.

    They multiply B A by alpha / r of the configuration, and take the module from the name of a tensor. Patterns of the
    configuration are not read by all. SGLang wants tensors of rank r, and a list of last names.
    """
    settings = json.loads((folder / "adapter_config.json").read_text())
    rank, scale = settings["r"], settings["lora_alpha"] / settings["r"]
    assert isinstance(settings["target_modules"], list)
    assert not settings["use_dora"]
    assert not settings["use_rslora"]
    assert settings["bias"] == "none"
    tensors, model = load_file(folder / WEIGHTS), copy.deepcopy(model)
    for name, a in tensors.items():
        if match := re.fullmatch(r"base_model\.model\.(.*)\.lora_A\.weight", name):
            b = tensors[name.replace("lora_A", "lora_B")]
            assert a.dtype == b.dtype == torch.bfloat16
            assert a.shape[0] == b.shape[1] == rank
            assert match[1].rpartition(".")[2] in settings["target_modules"]
            weight = model.get_submodule(match[1]).weight
            weight.data += scale * (b.float() @ a.float())
    return model, rank, {name for name in tensors if ".lora_A." in name}


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_an_engine_gives_the_logits_of_the_attached_edit(family, tmp_path):
    model = copy.deepcopy(built(family)[0]).eval()
    edit = low_rank_edit(model, size=0.3)
    export_lora(edit, model, tmp_path / "adapter", engine="vllm")
    found, rank, names = engine_model(model, tmp_path / "adapter")
    assert rank == 8
    assert len(names) == len(edit.directions)
    assert not any("vision" in name or "visual" in name for name in names)
    plain = logits(model, BATCH)
    with edit.attach(model):
        attached = logits(model, BATCH)
    change = float((attached - plain).abs().max())
    assert float((logits(found, BATCH) - attached).abs().max()) < 0.02 * change


def test_ranks_that_differ_are_filled_up_to_one(tmp_path):
    model = copy.deepcopy(built("llava")[0]).eval()
    first, second, *_ = find_value_matrices(model)
    gates = {first.key: torch.zeros(first.width), second.key: torch.zeros(second.width)}
    gates[first.key][:9], gates[second.key][:2] = -1.0, -2.0
    edit = GateEdit(gates)
    export_lora(edit, model, tmp_path / "adapter", engine="sglang")
    found, rank, _ = engine_model(model, tmp_path / "adapter")
    assert rank == 16
    for matrix in (first, second):
        wanted = edit.changed(matrix, matrix.read())
        torch.testing.assert_close(found.get_submodule(matrix.name).weight.data, wanted, atol=0.01, rtol=0.01)


def test_factors_of_very_different_lengths_keep_their_product():
    a, b = torch.rand(1, 6) * 1e-20 + 1e-21, torch.rand(5, 1) * 1e20 + 1e19
    rank, found = served({"one": (a, b)})
    lengths = [float(half.float().norm()) for half in found["one"]]
    assert rank == 8
    assert lengths[0] == pytest.approx(lengths[1], rel=0.02)
    torch.testing.assert_close(found["one"][1].float() @ found["one"][0].float(), b @ a, rtol=0.02, atol=0)


def test_a_direction_without_effect_stays_finite():
    _, found = served({"one": (torch.ones(1, 4), torch.zeros(3, 1))})
    assert all(bool(half.isfinite().all()) for half in found["one"])


@pytest.mark.parametrize(("needed", "rank"), [(1, 8), (8, 8), (9, 16), (65, 128), (512, 512)])
def test_the_smallest_rank_with_room_is_taken(needed, rank):
    found = served({"one": (torch.ones(needed, 4), torch.ones(3, needed))})
    assert (found[0], found[1]["one"][0].shape, found[1]["one"][1].shape) == (rank, (rank, 4), (3, rank))


def test_what_no_engine_has_room_for_is_refused():
    with pytest.raises(kvw.UserError, match="too wide") as told:
        served({"one": (torch.ones(RANKS[-1] + 1, 4), torch.ones(3, RANKS[-1] + 1))})
    assert "kvw serve" in told.value.do
