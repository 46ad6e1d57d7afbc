"""Other weights as an edit: attached, mixed, folded, and as a file."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.gradient import fresh, weights_of

from kvw.edits import WeightsEdit, load_edit, mix
from kvw.edits.edit import EditMetadata
from kvw.errors import UserError

NAMES = ("lm_head.weight", "model.language_model.layers.1.mlp.up_proj.weight")


@pytest.fixture
def model():
    return fresh()[0]


@pytest.fixture
def edit(model):
    generator = torch.Generator().manual_seed(0)
    live = dict(model.named_parameters())
    return WeightsEdit({name: torch.randn(live[name].shape, generator=generator) for name in NAMES})


def test_attached_weights_are_in_place_and_come_off_bit_for_bit(model, edit):
    before = weights_of(model)
    with edit.attach(model) as attached:
        after = weights_of(model)
        assert {name for name in before if not torch.equal(before[name], after[name])} == set(NAMES)
        assert all(torch.equal(after[name], edit.weights[name]) for name in NAMES)
    attached.detach()
    assert all(torch.equal(value, before[name]) for name, value in weights_of(model).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mixture_lies_between_and_shares_multiply(model, edit, dtype):
    model = copy.deepcopy(model).to(dtype)
    before = weights_of(model)
    half = mix(mix(edit, 0.8), 0.5)
    assert half.share == pytest.approx(0.4)
    half.fold(model)
    for name in NAMES:
        expected = (0.6 * before[name].double() + 0.4 * edit.weights[name].double()).to(dtype)
        found = model.get_parameter(name)
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected)


def test_a_file_gives_the_same_edit_back(edit, tmp_path):
    half = edit.mixed(0.5, EditMetadata(method="npo"))
    half.save(tmp_path / "e.safetensors")
    again = load_edit(tmp_path / "e.safetensors")
    assert isinstance(again, WeightsEdit)
    assert (again.share, again.metadata, again.digest()) == (0.5, half.metadata, half.digest())
    assert edit.digest() != half.digest()
    assert [(layer.key, layer.trained) for layer in again.describe()] == [
        (name, edit.weights[name].numel()) for name in NAMES
    ]


def test_another_model_is_refused_and_nothing_happens(edit):
    other = fresh("qwen2_vl")[0]
    before = weights_of(other)
    with pytest.raises(UserError, match=r"does not fit this Qwen2VL(.|\n)*lm_head\.weight"):
        edit.attach(other)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(other).items())


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_beyond_the_weights_is_no_edit(edit, share):
    with pytest.raises(ValueError, match="share is"):
        WeightsEdit.from_tensors({**edit.tensors(), "share": torch.tensor(share).double()}, EditMetadata())


def test_nothing_in_place_does_nothing(edit):
    assert WeightsEdit({}).does_nothing
    assert edit.mixed(0.0, EditMetadata()).does_nothing
    assert not edit.does_nothing
