"""A pruned model keeps its zeros, and its survivors get what the zeros would have moved."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.gradient import DEFAULTS, FORGET, LORA, RETAIN, TRAINED, changed, forget_by, fresh, training, weights_of
from torch import nn

import kvw
from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.iau import IauSettings
from kvw.methods.registry import get_method
from kvw.training.settings import TrainingSettings
from kvw.training.sparsity import redistributed

ONE = {"batch_size": 4}
SHORT = {"epochs": 2, "weight_decay": 0.1, **ONE}


def pruned(share=0.5):
    """A tiny model, the smallest weights of each linear map zero, and what is zero by name."""
    model, processor = fresh()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layers" in name:
            weight = module.weight.data
            module.weight.data = torch.where(weight.abs() > weight.abs().quantile(share), weight, 0)
    return model, processor, zeros_of(model)


def zeros_of(model):
    return {name: value == 0 for name, value in weights_of(model).items() if bool((value == 0).any())}


def test_a_dense_model_is_trained_as_ever():
    free, _ = forget_by("ga", keep_zeros="off", **ONE)
    kept, result = forget_by("ga", **ONE)
    assert changed(kept, weights_of(free)) == set()
    assert result.kept_zeros == 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("redistribution", "lora", "epochs"),
    [("row", None, 10), ("off", None, 2), ("row", LORA, 2)],
    ids=["ten-steps", "masks-alone", "adapters"],
)
def test_every_zero_stays_after_steps_with_decay(redistribution, lora, epochs):
    model, processor, zeros = pruned()
    before = weights_of(model)
    settings = training(**{**SHORT, "epochs": epochs}, redistribution=redistribution, lora=lora)
    result = unlearn(model, processor, FORGET[:2], RETAIN, "ga", None, settings)
    assert len(result.history) == epochs
    after = weights_of(model)
    decoder = [name for name in zeros if "language_model" in name and "proj.weight" in name]
    assert len(decoder) == 4 * 7
    assert all(torch.equal(after[name] == 0, zeros[name]) for name in zeros)
    assert not any(torch.equal(after[name], before[name]) for name in decoder)
    assert result.kept_zeros == sum(int(zeros[name].sum()) for name in decoder)
    # An adapter alone would fill the zeros when it is merged anew.
    assert (result.adapter, result.adapter_config) == ({}, None)


def test_switched_off_the_zeros_move():
    model, processor, zeros = pruned()
    unlearn(model, processor, FORGET, RETAIN, "ga", None, training(keep_zeros="off", **ONE))
    after = weights_of(model)
    assert any(bool((after[name][where] != 0).any()) for name, where in zeros.items())


def test_few_zeros_are_kept_only_if_they_are_asked_for():
    for keep, expected in (("auto", 0), ("on", 1)):
        model, processor, _zeros = pruned(share=0.05)
        result = unlearn(model, processor, FORGET, RETAIN, "ga", None, training(keep_zeros=keep, **ONE))
        assert bool(result.kept_zeros) == bool(expected)


@pytest.mark.thorough
def test_every_setting_changes_the_weights():
    changes = [{"redistribution": "tensor"}, {"importance": "fisher"}, {"importance": "magnitude"}, {"largest_step": 1}]
    found = []
    for change in [{}, *changes]:
        model, processor, _ = pruned()
        unlearn(model, processor, FORGET[:2], [], "ga", None, training(**ONE, **change))
        found.append(weights_of(model)["model.language_model.layers.0.mlp.down_proj.weight"])
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(found, 2))


def test_a_row_moves_as_far_as_with_its_zeros():
    generator = torch.Generator().manual_seed(0)
    step, weights = (torch.randn(5, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    alive = torch.rand(5, 8, generator=generator) > 0.5
    alive[0] = False
    alive[1] = True
    found = redistributed(step, alive, weights.abs(), 5, 1e9)
    assert not found[~alive].any()
    assert torch.equal(found[1], step[1])
    assert torch.allclose(found.abs().sum(1)[1:], step.abs().sum(1)[1:])
    share = (found - step).abs()[2] / weights[2].abs()
    assert torch.allclose(share[alive[2]], share[alive[2]][0].expand(int(alive[2].sum())))
    whole = redistributed(step, alive, weights.abs(), 1, 1e9)
    assert float(whole.abs().sum()) == pytest.approx(float(step.abs().sum()))
    capped = redistributed(step, alive, weights.abs(), 5, 1.5)
    assert bool((capped.abs() <= 1.5 * step.abs() + 1e-12).all())
    assert torch.equal(redistributed(step, torch.ones_like(alive), weights.abs(), 5), step)


def test_what_does_not_move_is_given_nothing():
    step, alive = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[True, True, False]])
    assert redistributed(step, alive, torch.ones(1, 3), 1).tolist() == [[0.0, 3.0, 0.0]]


@pytest.mark.parametrize(
    "method",
    [
        method if method in {"iau", "mmunlearner"} else pytest.param(method, marks=pytest.mark.slow)
        for method in sorted({*TRAINED, "iau"} - {"dpo"})
    ],
)
def test_every_method_that_trains_keeps_them(method):
    model, processor, zeros = pruned()
    settings = {"iau": IauSettings(rate=1e-2), "auvic": DEFAULTS["auvic"]}.get(method)
    how = training(weight_decay=0.1, **ONE) if method != "iau" else None
    result = unlearn(model, processor, FORGET, RETAIN, method, settings, how)
    after = weights_of(model)
    assert all(bool((after[name][where] == 0).all()) for name, where in zeros.items())
    assert result.kept_zeros


@pytest.mark.thorough
def test_a_killed_run_goes_on_with_the_same_zeros(tmp_path):
    model, processor, _zeros = pruned()
    whole = unlearn(model, processor, FORGET, RETAIN, "ga", None, training(**SHORT))
    expected = weights_of(model)
    again, _, _ = pruned()

    def killed(done, _):
        if done == 1:
            raise KeyboardInterrupt

    settings = training(**SHORT, save_every=1)
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        unlearn(again, processor, FORGET, RETAIN, "ga", None, settings, state=state, progress=killed)
    again, _, _ = pruned()
    unlearn(again, processor, FORGET, RETAIN, "ga", None, settings, state=state)
    assert changed(again, expected) == set()
    assert whole.kept_zeros


def test_a_user_is_told_that_zeros_were_kept():
    model, processor, _zeros = pruned()
    told = []
    kvw.unlearn(model, FORGET, RETAIN, {}, method="ga", processor=processor, on_warning=told.append)
    assert any("weights that are zero were kept zero" in warning for warning in told)


def test_kvw_keeps_zeros_by_itself():
    """Its gates multiply."""
    model, processor, zeros = pruned()
    edit = kvw.unlearn(model, FORGET, RETAIN, {"gamma": 1.0}, method=get_method("kvw").name, processor=processor)
    before = weights_of(model)
    edit.fold(model)
    after = weights_of(model)
    assert changed(model, before)
    assert all(bool((after[name][where] == 0).all()) for name, where in zeros.items())


def test_a_limit_below_one_is_refused():
    with pytest.raises(UserError, match="largest_step must be a number of at least 1"):
        TrainingSettings(largest_step=0.5)
