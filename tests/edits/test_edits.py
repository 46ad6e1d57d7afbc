"""Edits on live models and in files."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from safetensors.torch import load_file, save_file
from tests.batches import logits, text_batch, weights

import kvw
from kvw.edits import EditMetadata, GateEdit, RoundedGateEdit
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

BATCH = text_batch(2, 10, 3, seed=0)


def gate_edit(model, layers=(1, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return GateEdit(
        {
            matrix.key: -3 * torch.rand(matrix.width, generator=generator)
            for matrix in find_value_matrices(model)
            if layers[0] <= matrix.key.layer <= layers[1]
        },
        EditMetadata(method="kvw", settings={"gamma": 0.5}, base_model="tiny"),
    )


def rounded_edit(model):
    gates = gate_edit(model).log_gates
    return RoundedGateEdit({key: torch.stack([value.exp()] * 3).to(model.dtype) for key, value in gates.items()})


@pytest.mark.parametrize("make", [gate_edit, rounded_edit])
def test_attach_and_fold_agree_and_detach_restores(model, make):
    edit = make(model)
    before, original = weights(model), logits(model, BATCH)
    with edit.attach(model):
        attached = logits(model, BATCH)
    assert torch.equal(logits(model, BATCH), original)
    assert all(torch.equal(weights(model)[key], value) for key, value in before.items())
    edit.fold(model)
    torch.testing.assert_close(logits(model, BATCH), attached, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(attached, original)


def test_attach_works_without_a_with_block(llava):
    original = logits(llava, BATCH)
    attachment = gate_edit(llava).attach(llava)
    assert not torch.allclose(logits(llava, BATCH), original)
    attachment.detach()
    attachment.detach()
    assert torch.equal(logits(llava, BATCH), original)


def test_fold_multiplies_columns(llava):
    edit = gate_edit(llava)
    before = weights(llava)
    edit.fold(llava)
    for key, gates in edit.log_gates.items():
        torch.testing.assert_close(weights(llava)[key], before[key] * gates.exp(), rtol=1e-6, atol=0)


def test_fold_rounds_once_in_half_precision(llava):
    llava.to(torch.bfloat16)
    edit = gate_edit(llava)
    before = weights(llava)
    edit.fold(llava)
    for key, gates in edit.log_gates.items():
        exact = (before[key].double() * gates.double().exp()).float()
        assert torch.equal(weights(llava)[key], exact.to(torch.bfloat16))


def test_an_attached_edit_in_half_precision_is_as_close_as_one_rounding(llava):
    """In bfloat16 attaching rounds coefficients and folding rounds weights: each is one rounding from exact."""
    edit = gate_edit(llava)
    exact = copy.deepcopy(llava)
    edit.fold(exact)
    reference = logits(exact, BATCH)
    llava.to(torch.bfloat16)
    plain_error = (logits(llava, BATCH).float() - logits(copy.deepcopy(llava).float(), BATCH)).abs().max()
    with edit.attach(llava):
        error = (logits(llava, BATCH).float() - reference).abs().max()
    assert error < 4 * plain_error


@pytest.mark.thorough
@pytest.mark.parametrize("make", [gate_edit, rounded_edit])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_offloaded_weights_are_edited_too(llava, make, place, tmp_path):
    expected, original = copy.deepcopy(llava), logits(llava, BATCH)
    edit = make(llava)
    edit.fold(expected)
    if place == "disk":
        offloaded = disk_offload(llava, tmp_path, execution_device=torch.device("cpu"))
    else:
        offloaded = cpu_offload(llava, execution_device=torch.device("cpu"))
    with edit.attach(offloaded):
        torch.testing.assert_close(logits(offloaded, BATCH), logits(expected, BATCH), rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(offloaded, BATCH), original)
    edit.fold(offloaded)
    torch.testing.assert_close(logits(offloaded, BATCH), logits(expected, BATCH))


@pytest.mark.thorough
@pytest.mark.parametrize("parity", [False, True])
def test_offloaded_models_are_weakened_as_loaded_ones(llava, parity, tmp_path):
    batches = [text_batch(1, 9, 3, seed=index) for index in range(3)]
    expected = kvw.weaken(llava, batches, [BATCH], kvw.KvwSettings(seed=None, gamma=1.0, layers=(0, 3), parity=parity))
    offloaded = disk_offload(llava, tmp_path, execution_device=torch.device("cpu"))
    found = kvw.weaken(offloaded, batches, [BATCH], kvw.KvwSettings(seed=None, gamma=1.0, layers=(0, 3), parity=parity))
    for name, value in expected.tensors().items():
        torch.testing.assert_close(found.tensors()[name], value)


@pytest.mark.parametrize("make", [gate_edit, rounded_edit])
def test_a_file_brings_back_the_edit(llava, make, tmp_path):
    edit = make(llava)
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.load_edit(tmp_path / "edit.safetensors")
    assert type(loaded) is type(edit)
    assert loaded.metadata == edit.metadata
    for name, value in edit.tensors().items():
        assert torch.equal(loaded.tensors()[name], value)


def test_the_file_is_small_and_plain(llava, tmp_path):
    edit = gate_edit(llava)
    edit.save(tmp_path / "edit.safetensors")
    tensors = load_file(tmp_path / "edit.safetensors")
    assert set(tensors) == {f"layer.{layer}.log_gates" for layer in (1, 2, 3)}
    numbers = sum(value.numel() for value in tensors.values())
    assert (tmp_path / "edit.safetensors").stat().st_size < 4 * numbers + 4096


def test_a_summary_counts_what_is_weakened():
    edit = GateEdit({MatrixKey(2): torch.tensor([0.0, -0.5, -1.0, 0.0])})
    (layer,) = edit.describe()
    assert (layer.key, layer.vectors, layer.weakened) == ("layer.2", 4, 2)
    assert layer.smallest_gate == pytest.approx(0.36787944)
    assert layer.total_exponent == pytest.approx(1.5)


def test_the_edit_of_another_model_is_refused(qwen2_vl, llava):
    with pytest.raises(kvw.UserError, match="does not fit") as caught:
        gate_edit(qwen2_vl).fold(llava)
    assert "tiny" in str(caught.value)
    with pytest.raises(kvw.UserError, match="missing in the model"):
        GateEdit({MatrixKey(99): torch.zeros(3)}).attach(llava)


def test_quantised_weights_are_refused_for_folding(llava):
    matrix = find_value_matrices(llava)[1]
    matrix.module.weight = torch.nn.Parameter(torch.zeros_like(matrix.module.weight).to(torch.int8), False)
    edit = gate_edit(llava)
    with pytest.raises(kvw.UserError, match="quantised"):
        edit.fold(llava)


def test_files_that_are_no_edits_are_refused(tmp_path):
    with pytest.raises(kvw.UserError, match="no edit file"):
        kvw.load_edit(tmp_path / "nothing.safetensors")
    (tmp_path / "text.safetensors").write_text("not a safetensors file at all")
    with pytest.raises(kvw.UserError, match="not a safetensors file"):
        kvw.load_edit(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(kvw.UserError, match="not an edit file"):
        kvw.load_edit(tmp_path / "other.safetensors")


@pytest.mark.parametrize("key", [MatrixKey(0), MatrixKey(31), MatrixKey(3, 0), MatrixKey(12, 127)])
def test_keys_are_read_back(key):
    assert MatrixKey.parse(f"{key}.log_gates") == key


def test_a_rounded_edit_that_fails_half_way_takes_back_what_it_has_written(llava, monkeypatch):
    edit, before, written = rounded_edit(llava), weights(llava), []
    changed = RoundedGateEdit.changed

    def fails(self, matrix, weight):
        written.append(matrix.key)
        if len(written) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return changed(self, matrix, weight)

    monkeypatch.setattr(RoundedGateEdit, "changed", fails)
    with pytest.raises(torch.OutOfMemoryError):
        edit.attach(llava)
    assert all(torch.equal(value, before[key]) for key, value in weights(llava).items())
