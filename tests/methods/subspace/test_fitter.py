"""Subspace weakening with batches that come one at a time."""

from __future__ import annotations

import pytest
import torch
from tests.batches import padded, text_batch
from tests.measuring.test_given import same
from tests.measuring.test_labelled import EXAMPLES
from torch.utils.data import DataLoader, Dataset

import kvw
from kvw.measuring.prefixes import SharedBatch
from kvw.models.finding import find_value_matrices
from kvw.models.layer_inputs import decoder_layers

FORGET = [text_batch(2, 9, 3, seed=1), padded(text_batch(1, 7, 2, seed=2), 2, 0)]
RETAIN = [text_batch(3, 9, 3, seed=seed) for seed in range(3, 7)]
SETTINGS = {"min_tokens": 1, "gate": "exponential"}  # its threshold is measured on some of the retain examples


def fitted(model, settings=SETTINGS, forget=FORGET, retain=RETAIN):
    fitter = kvw.SubspaceFitter(model, settings)
    for batch in retain:
        fitter.update_retain(batch)
    for batch in forget:
        fitter.update_forget(batch)
    return fitter


def test_it_is_what_subspace_makes_of_the_same_batches(llava):
    expected = kvw.subspace(llava, FORGET, RETAIN, SETTINGS)
    fitter = fitted(llava)
    found = fitter.edit()
    assert any(len(one.log_gates) for one in found.directions.values())
    for name, value in expected.tensors().items():
        torch.testing.assert_close(found.tensors()[name], value, rtol=1e-5, atol=1e-6)
    assert found.metadata == expected.metadata
    assert same(found, fitter.edit())


def test_it_goes_on_after_an_edit(llava):
    fitter = fitted(llava, retain=RETAIN[:2])
    assert same(fitter.edit(), kvw.subspace(llava, FORGET, RETAIN[:2], SETTINGS))
    for batch in RETAIN[2:]:
        fitter.update_retain(batch)
    assert same(fitter.edit(), kvw.subspace(llava, FORGET, RETAIN, SETTINGS))


def test_batches_of_kvw_in_two_parts_are_taken(llava, llava_processor):
    forget, retain = (kvw.batches(llava, llava_processor, some) for some in (EXAMPLES[:3], EXAMPLES[3:]))
    assert isinstance(forget[0], SharedBatch)
    labels = kvw.Labels()
    expected = kvw.subspace(llava, forget, retain, SETTINGS, forget_labels=labels, retain_labels=labels)
    assert same(fitted(llava, forget=forget, retain=retain).edit(), expected)


class Rows(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {name: value[0] for name, value in text_batch(1, 9, 3, seed=20 + index).items()}


def test_a_plain_loader_will_do(llava):
    loader = DataLoader(Rows(), batch_size=4)
    assert same(fitted(llava, retain=loader).edit(), kvw.subspace(llava, FORGET, list(loader), SETTINGS))


def test_the_model_stays_as_it_was(llava):
    before = {name: value.clone() for name, value in llava.state_dict().items()}
    llava.train()
    llava.model.vision_tower.eval()
    fitted(llava).edit()
    assert llava.training
    assert not llava.model.vision_tower.training
    assert all(torch.equal(value, before[name]) for name, value in llava.state_dict().items())
    assert not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(llava))
    assert all(parameter.grad is None for parameter in llava.parameters())


@pytest.mark.parametrize("settings", [{"layers": (1, 1)}, {"sources.prompt": 0.9, "null_every": 100}])
def test_settings_have_a_part(llava, settings):
    changed = {**SETTINGS, **settings}
    found = fitted(llava, changed).edit()
    assert same(found, kvw.subspace(llava, FORGET, RETAIN, changed))
    default = fitted(llava).edit()
    assert found.widths != default.widths or not same(found, default)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "sequential"},
        {"path": "layer by layer"},
        {"layers_per_pass": 1},
        {"retain_rows": 5},
        {"shrinkage": "cross-validated"},
        {"held_out_ratio": 1.5},
    ],
    ids=str,
)
def test_settings_that_need_more_than_one_look_are_refused(llava, settings):
    with pytest.raises(kvw.UserError, match=f"found: {next(iter(settings))}="):
        kvw.SubspaceFitter(llava, settings)


def test_a_set_that_nobody_gave_is_told(llava):
    for given in ({"forget": []}, {"retain": []}):
        with pytest.raises(kvw.UserError, match="saw no token"):
            fitted(llava, **given).edit()


def test_a_batch_that_cannot_be_used_is_refused_and_leaves_no_trace(llava):
    fitter = fitted(llava)
    for batch in ({"input_ids": FORGET[0]["input_ids"]}, EXAMPLES[0], (1, 2)):
        with pytest.raises(kvw.UserError, match=r"no 'labels'|no mapping of tensors"):
            fitter.update_retain(batch)
    assert same(fitter.edit(), fitted(llava).edit())


def test_a_batch_that_fails_half_way_ends_the_fitter(llava):
    fitter = fitted(llava)

    def lost(*_):
        raise RuntimeError("lost")

    handle = decoder_layers(llava)[-1].register_forward_pre_hook(lost)
    with pytest.raises(RuntimeError, match="lost"):
        fitter.update_forget(FORGET[0])
    handle.remove()
    for call in (fitter.edit, lambda: fitter.update_forget(FORGET[0])):
        with pytest.raises(kvw.UserError, match=r"(?s)failed half-way.*a new fitter"):
            call()


def test_what_can_hardly_be_told_apart_is_warned_of(llava):
    with pytest.warns(UserWarning, match="cannot be told"):
        fitted(llava, retain=FORGET).edit()
