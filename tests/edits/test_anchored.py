"""The merge of SMFA: which entries are taken back, in numbers and on tiny models."""

from __future__ import annotations

import pytest
import torch
from tests.gradient import fresh, weights_of
from tests.methods.test_lunar import made as lunar_edit

import kvw
from kvw.edits import WeightsEdit, anchor, mix
from kvw.edits.anchored import opposed
from kvw.edits.edit import EditMetadata

NAME, ALONE = "model.language_model.layers.1.mlp.up_proj.weight", "lm_head.weight"


def test_entries_go_that_oppose_and_outweigh():
    before = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    own = torch.tensor([3.0, -3.0, 3.0, 1.0, 0.0])
    other = torch.tensor([-1.0, 1.0, 1.0, -0.2, -9.0])
    ratio = float(own.norm() / other.norm())
    assert 3.0 < 5 / ratio < 3.1 / ratio * 2
    for times in (0.0, 2.0, 5.0, 100.0):
        expected = [
            bool(f * a < 0 and abs(f) > times * ratio * abs(a))
            for f, a in zip(own.tolist(), other.tolist(), strict=True)
        ]
        assert opposed(before + own, before + other, before, times).tolist() == expected, times
    assert opposed(before + own, before + other, before, 0.0).tolist() == [True, True, False, True, False]
    assert not opposed(before + own, before, before, 0.0).any()
    assert not opposed(before + own, before + own, before, 0.0).any()


@pytest.fixture
def model():
    return fresh()[0]


def edits(model, **metadata):
    generator = torch.Generator().manual_seed(0)
    live = dict(model.named_parameters())

    def moved(*names):
        return {name: live[name].detach() + 0.1 * torch.randn(live[name].shape, generator=generator) for name in names}

    return (
        WeightsEdit(moved(NAME, ALONE), metadata=EditMetadata(method="idk-nll", **metadata)),
        WeightsEdit(moved(NAME), metadata=EditMetadata(method="finetune")),
    )


def test_only_those_entries_are_what_they_were(model):
    before = weights_of(model)
    edit, retaining = edits(model)
    merged = anchor(edit, retaining, model, times=0.5)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(model).items())
    taken = opposed(edit.weights[NAME], retaining.weights[NAME], before[NAME], 0.5)
    assert 0.1 < float(taken.float().mean()) < 0.6
    assert torch.equal(merged.weights[NAME][taken], before[NAME][taken])
    assert torch.equal(merged.weights[NAME][~taken], edit.weights[NAME][~taken])
    assert torch.equal(merged.weights[ALONE], edit.weights[ALONE])
    assert [parent.method for parent in merged.metadata.parents] == ["idk-nll", "finetune"]
    assert merged.metadata.settings == {"times": 0.5}
    assert torch.equal(anchor(edit, retaining, model, times=1e9).weights[NAME], edit.weights[NAME])
    half = anchor(mix(edit, 0.5), retaining, model, times=1e9)
    torch.testing.assert_close(half.weights[NAME], (before[NAME] + edit.weights[NAME]) / 2)


def test_what_cannot_be_anchored_is_said(model, llava, llava_processor):
    edit, retaining = edits(model, model_fingerprint="a" * 64)
    with pytest.raises(kvw.UserError, match="Only edits of weights"):
        anchor(lunar_edit(llava, llava_processor)[2], retaining, model)
    with pytest.raises(kvw.UserError, match="times must be"):
        anchor(edit, retaining, model, times=-1)
    other = WeightsEdit(retaining.weights, metadata=EditMetadata(model_fingerprint="b" * 64))
    with pytest.raises(kvw.UserError, match="different weights"):
        anchor(edit, other, model)
    with pytest.raises(kvw.UserError, match="does not fit"):
        anchor(WeightsEdit({"nowhere.weight": torch.ones(2)}), retaining, model)


@pytest.mark.thorough
def test_the_command_line_writes_the_merge(saved, tmp_path, monkeypatch, capsys):
    from tests.program import run

    monkeypatch.chdir(tmp_path)
    model = kvw.load_model(kvw.find_checkpoint(str(saved["llava"])))
    for name, edit in zip(("edit", "retaining"), edits(model), strict=True):
        edit.save(tmp_path / f"{name}.safetensors")
    given = ("edit.safetensors", "retaining.safetensors", saved["llava"], "--out", "merged.safetensors")
    assert run("edit", "anchor", *given, "--times", 0.5) == 0
    merged = kvw.load_edit("merged.safetensors")
    assert merged.metadata.method == "anchor"
    assert merged.metadata.settings == {"times": 0.5}
    assert not torch.equal(merged.weights[NAME], kvw.load_edit("edit.safetensors").weights[NAME])
    assert run("edit", "anchor", *given) == 2
    assert "merged.safetensors" in capsys.readouterr().err
