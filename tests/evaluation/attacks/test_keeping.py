"""Whatever is done to a model, it gets its weights back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.evaluation.attacks.edits import weakening
from tests.gradient import RETAIN, changed, fresh, training, weights_of
from torch import nn

from kvw.edits import SteeringEdit
from kvw.edits.weights import WeightsEdit
from kvw.errors import UserError
from kvw.evaluation.attacks import folded, quantised, relearned, rounded, trained_weights, weights_kept
from kvw.training.planting import finetune

ATTACKS = {
    "bf16": lambda model, processor: rounded(model, torch.bfloat16),
    "fp16": lambda model, processor: rounded(model, torch.float16, lambda given: folded(given, weakening(given))),
    "int8": lambda model, processor: quantised(model, 8),
    "int4": lambda model, processor: quantised(model, 4),
    "relearning": lambda model, processor: relearned(model, processor, RETAIN, 2, training()),
    "folding": lambda model, processor: folded(model, weakening(model)),
    "anything": lambda model, processor: weights_kept(model),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_bit_for_bit_what_it_was(name, fails):
    model, processor = fresh()
    model.register_buffer("count", torch.zeros(2))
    before, flags = weights_of(model), [parameter.requires_grad for parameter in model.parameters()]
    tensors = [id(parameter) for parameter in model.parameters()]
    try:
        with ATTACKS[name](model, processor):
            if name == "anything":
                model.count += 1
                nn.init.zeros_(model.get_output_embeddings().weight)
            assert changed(model, before)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert changed(model, before) == set()
    assert [id(parameter) for parameter in model.parameters()] == tensors
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not model.training


def test_attacks_come_on_top_of_each_other_and_of_an_edit():
    model, processor = fresh()
    before = weights_of(model)
    with folded(model, weakening(model)), quantised(model, 4), relearned(model, processor, RETAIN, 1, training()):
        assert changed(model, before)
    assert changed(model, before) == set()


def test_folded_is_folded_and_what_training_left_is_put_on_as_it_was(tmp_path):
    model, processor = fresh()
    edit, (other, _) = weakening(model), fresh()
    edit.fold(other)
    with folded(model, edit):
        assert changed(model, weights_of(other)) == set()
    finetune(other, processor, RETAIN, training()).save(tmp_path / "result")
    before = weights_of(model)
    with folded(model, edit):  # the result holds all weights of the language part
        inside = weights_of(model)
        with trained_weights(model, tmp_path / "result"):
            assert changed(model, weights_of(other)) == set()
        assert changed(model, inside) == set()
    assert changed(model, before) == set()


def test_trained_weights_are_folded_and_taken_back():
    model, _ = fresh()
    before, name = weights_of(model), "model.language_model.layers.0.mlp.down_proj.weight"
    with folded(model, WeightsEdit({name: torch.ones_like(model.get_parameter(name))})):
        assert changed(model, before) == {name}
    assert changed(model, before) == set()


def test_an_edit_without_weights_is_attached():
    """What acts by hooks alone has no weights to be folded into."""

    class Hooked(SteeringEdit):
        kind = "hooked for a test"
        attached = 0

        def attach(self, model):
            Hooked.attached += 1
            return super().attach(model)

    model, _ = fresh()
    before = weights_of(model)
    with folded(model, Hooked({})):
        assert changed(model, before) == set()
    assert Hooked.attached == 1
    del SteeringEdit.kinds[Hooked.kind]


def test_weights_that_cannot_be_changed_are_refused():
    model, _ = fresh()
    layer = model.get_submodule("model.language_model.layers.0.mlp.down_proj")
    whole = layer.weight
    layer.weight = nn.Parameter(whole.to(torch.int8), requires_grad=False)
    with pytest.raises(UserError, match="quantised weights, which attacks cannot change"), weights_kept(model):
        pass
    layer.weight = nn.Parameter(whole.to("meta"))
    with pytest.raises(UserError, match="out of the way") as caught, weights_kept(model):
        pass
    assert caught.value.found == "model.language_model.layers.0.mlp.down_proj.weight"


def test_settings_of_training_are_the_callers():
    model, processor = fresh()
    found = []
    for settings in (training(), training(learning_rate=1e-2), replace(training(), parts=("projector",))):
        with relearned(model, processor, RETAIN, 1, settings):
            found.append(weights_of(model))
    assert {name for name in found[0] if not torch.equal(found[0][name], found[1][name])}
    before = weights_of(model)
    only = {name for name, value in found[2].items() if not torch.equal(value, before[name])}
    assert only
    assert all("projector" in name for name in only)
