"""Where models lie: named devices, and weights offloaded to disk because nothing else has room."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import cpu_offload
from tests.batches import logits, text_batch, weights
from tests.edits.test_edits import gate_edit, rounded_edit

import kvw
from kvw.models.finding import find_value_matrices
from kvw.models.loading import check_finite, find_checkpoint, load_model
from kvw.models.placement import accelerators, describe_devices, device_map, execution_device, find_device
from kvw.models.saving import parameter_bytes
from kvw.runs.costs import peak_memory

BATCH = text_batch(2, 10, 3, seed=0)


@pytest.fixture
def accelerator(monkeypatch):
    """As if there were two accelerators."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 1)


@pytest.fixture
def little_memory(monkeypatch):
    """As if most of a tiny model did not fit into memory."""
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda *_: {"cpu": 250_000})


@pytest.fixture
def on_disk(saved, little_memory):
    """The tiny LLaVA with its decoder left on disk."""
    return load_model(find_checkpoint(str(saved["llava"])), "auto")


@pytest.mark.parametrize("name", ["cpu", "xpu", "xpu:1"])
def test_devices_that_are_there(accelerator, name):
    assert find_device(name) == torch.device(name)
    assert device_map(name) == {"": torch.device(name)}
    assert find_device(None) == torch.device("xpu:1")
    assert device_map("auto") == "auto"


@pytest.mark.parametrize("name", ["xpu:2", "cuda", "mps", "no such thing", "meta"])
def test_devices_that_are_not_there(accelerator, name):
    with pytest.raises(kvw.UserError, match=f"no device '{name}'") as caught:
        find_device(name)
    assert caught.value.found == "xpu:0, xpu:1, cpu"


def test_without_an_accelerator_there_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert find_device(None) == torch.device("cpu")
    with pytest.raises(kvw.UserError, match="no device") as caught:
        find_device("cuda")
    assert caught.value.found == "cpu"


def test_every_accelerator_is_told():
    places = ["xpu:1", "cpu", "xpu:0", "meta"]
    model = SimpleNamespace(
        parameters=lambda: iter([SimpleNamespace(device=torch.device(place)) for place in places]),
        modules=lambda: iter([SimpleNamespace(_hf_hook=SimpleNamespace(execution_device="xpu:0"))]),
    )
    assert accelerators(model) == [torch.device("xpu:0"), torch.device("xpu:1")]
    assert execution_device(model) == torch.device("xpu:0")
    assert describe_devices(model) == "xpu:0, xpu:1, weights partly offloaded"


def test_no_vendor_is_named():
    source = Path(kvw.__file__).parent
    files = list(source.rglob("*.py"))
    assert len(files) > 50
    for path in files:
        assert not re.search(r"torch\.cuda|[\"']cuda", path.read_text("utf-8")), path


def test_what_does_not_fit_is_left_on_disk(on_disk, saved, llava):
    places = {matrix.module.weight.device.type for matrix in find_value_matrices(on_disk)}
    assert places == {"meta"}
    assert execution_device(on_disk) == torch.device("cpu")
    assert describe_devices(on_disk) == "cpu, weights partly offloaded"
    assert describe_devices(llava) == "cpu"
    assert accelerators(on_disk) == []
    assert set(peak_memory(on_disk)) == {"process"}
    assert parameter_bytes(on_disk) == parameter_bytes(llava)
    assert torch.equal(logits(on_disk, BATCH), logits(llava, BATCH))


@pytest.mark.parametrize("make", [gate_edit, rounded_edit])
def test_edits_of_weights_on_disk_take_effect(on_disk, saved, llava, make):
    edit, original = make(llava), logits(llava, BATCH)
    content = (saved["llava"] / "model.safetensors").read_bytes()
    with edit.attach(llava):
        expected = logits(llava, BATCH)
    with edit.attach(on_disk):
        torch.testing.assert_close(logits(on_disk, BATCH), expected)
    assert torch.equal(logits(on_disk, BATCH), original)
    edit.fold(on_disk)
    edit.fold(llava)
    assert torch.equal(logits(on_disk, BATCH), logits(llava, BATCH))
    assert not torch.allclose(logits(llava, BATCH), original)
    assert all(torch.equal(m.read(), weights(llava)[m.key]) for m in find_value_matrices(on_disk))
    assert (saved["llava"] / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("parity", [False, True])
def test_weakening_a_model_on_disk_gives_the_same_edit(on_disk, llava, parity):
    batches = [text_batch(1, 9, 3, seed=index) for index in range(3)]
    expected, found = (
        kvw.weaken(model, batches, [BATCH], kvw.KvwSettings(seed=None, gamma=1.0, layers=(0, 3), parity=parity))
        for model in (llava, on_disk)
    )
    assert all(torch.equal(found.tensors()[name], value) for name, value in expected.tensors().items())


def test_offloaded_weights_are_looked_at_before_use(llava):
    llava.model.language_model.layers[2].mlp.up_proj.weight.data[3, 4] = float("inf")
    offloaded = cpu_offload(llava, execution_device=torch.device("cpu"))
    with pytest.raises(kvw.UserError, match=r"NaN or infinity") as caught:
        check_finite(offloaded)
    assert caught.value.found == "model.language_model.layers.2.mlp.up_proj.weight"
    assert llava.model.language_model.layers[2].mlp.up_proj.weight.device.type == "meta"


def test_a_packed_model_that_does_not_fit_is_a_message(saved, little_memory):
    with pytest.raises(kvw.UserError, match="could not be loaded") as caught:
        load_model(find_checkpoint(str(saved["llava"])), "auto", quantise="8bit")
    assert "CPU or the disk" in caught.value.found
