"""Pruning of neurons."""

from __future__ import annotations

import pytest
import torch
from tests.families import build_family
from tests.gradient import FORGET, RETAIN, TEXT, changed, fresh, sets, weights_of

from kvw.data import answer_batch
from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.manu import ManuSettings
from kvw.methods.gradient.pruning import neurons, tower_matrices


def activity(model, processor, name, prepared):
    """All coefficients of one FFN over a set, from one forward per example."""
    seen = []
    module = model.get_submodule(name)
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].reshape(-1, module.in_features)))
    with torch.no_grad():
        for item in prepared:
            batch = answer_batch([item], processor)
            model(**{key: value for key, value in batch.items() if key != "labels"})
    handle.remove()
    return torch.cat(seen).double()


def importance(values):
    return (
        values.abs().mean(0) + (values.abs() > 0.1).double().mean(0) + values.var(0, correction=0)
    ) + values.square().mean(0).sqrt()


def test_the_neurons_with_the_highest_ratio_of_importance_are_pruned_and_nothing_else():
    original, processor = fresh()
    names = [f"model.language_model.layers.{layer}.mlp.down_proj" for layer in range(4)]
    names += [f"model.vision_tower.encoder.layers.{layer}.mlp.fc2" for layer in range(3)]
    data = sets(processor)
    model, _ = fresh()
    found = [matrix.name for matrix in neurons(model, ManuSettings())]
    assert found == names
    scores = []
    for name in found:
        forget, retain = (activity(original, processor, name, data[side]) for side in ("forget", "retain"))
        scores.append(importance(forget) / (importance(retain) + 1e-5))
    count = round(0.1 * sum(len(score) for score in scores))
    threshold = torch.cat(scores).sort(descending=True).values[count - 1]
    before = weights_of(model)
    result = unlearn(model, processor, FORGET, RETAIN, "manu", ManuSettings(share=0.1))
    assert changed(model, before) <= set(result.weights) == {f"{name}.weight" for name in found}
    pruned = 0
    for name, score in zip(found, scores, strict=True):
        weight = model.get_submodule(name).weight
        kept = score < threshold
        assert torch.equal(weight[:, kept], before[f"{name}.weight"][:, kept])
        assert not weight[:, ~kept].any()
        pruned += int((~kept).sum())
    assert pruned == count


def test_vision_ffns_are_found_by_wiring():
    for family, count, width in (("llava", 3, 64), ("qwen2_vl", 2, 64), ("qwen2_5_vl", 2, 48)):
        model, _ = fresh(family)
        found = tower_matrices(model)
        assert [matrix.width for matrix in found] == [width] * count
        assert all(model.get_submodule(matrix.name) is matrix.module for matrix in found)


def test_no_hook_stays():
    model, processor = fresh()
    unlearn(model, processor, FORGET, RETAIN, "manu")
    assert not any(module._forward_pre_hooks for module in model.modules())
    seen = []
    unlearn(model, processor, FORGET, RETAIN, "manu", progress=lambda *step: seen.append(step))
    assert seen == [(4, 8), (8, 8)]


def test_padding_does_not_count():
    """In one batch all but the longest example are padded, alone none is."""
    one, processor = fresh()
    other, _ = fresh()
    settings = {"share": 0.2, "parts": ("language",)}
    unlearn(one, processor, FORGET + TEXT, RETAIN + TEXT, "manu", ManuSettings(**settings, batch_size=8))
    unlearn(other, processor, FORGET + TEXT, RETAIN + TEXT, "manu", ManuSettings(**settings, batch_size=1))
    assert changed(one, weights_of(other)) == set()


def test_what_cannot_be_compared_is_an_error():
    model, processor = fresh()
    with pytest.raises(UserError, match="an empty set"):
        unlearn(model, processor, FORGET, [], "manu")
    with pytest.raises(UserError, match=r"saw no token(.|\n)*without images"):
        unlearn(model, processor, FORGET, TEXT, "manu")
    with pytest.raises(UserError, match="dense FFNs only"):
        neurons(build_family("mixtral"), ManuSettings(parts=("language",)))
    with pytest.raises(UserError, match="No FFN of a vision tower"):
        neurons(build_family("llama"), ManuSettings())


@pytest.mark.parametrize(
    "change",
    [
        {"share": 0},
        {"weights": (1.0,)},
        {"weights": (0, 0, 0, 0)},
        {"parts": ()},
        {"parts": ("projector",)},
        {"last_layers": 0},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change)).removesuffix("s")):
        ManuSettings(**change)
