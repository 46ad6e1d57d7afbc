"""Pruning of neurons."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.families import build_family
from tests.gradient import FORGET, RETAIN, TEXT, changed, fresh, sets, weights_of
from torch.testing import assert_close

from kvw.data import answer_batch, prepare
from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.importance import Moments, Seen, scores
from kvw.methods.gradient.manu import ManuSettings
from kvw.methods.gradient.pruning import _Look, neurons, tower_matrices


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


@pytest.mark.thorough
def test_the_neurons_with_the_highest_ratio_of_importance_are_pruned_and_nothing_else():
    original, processor = fresh()
    names = [f"model.language_model.layers.{layer}.mlp.down_proj" for layer in range(4)]
    names += [f"model.vision_tower.encoder.layers.{layer}.mlp.fc2" for layer in range(3)]
    data = sets(processor)
    model, _ = fresh()
    found = [matrix.name for matrix in neurons(model, ManuSettings(formula="pooled"))]
    assert found == names
    scores = []
    for name in found:
        forget, retain = (activity(original, processor, name, data[side]) for side in ("forget", "retain"))
        scores.append(importance(forget) / (importance(retain) + 1e-5))
    count = round(0.1 * sum(len(score) for score in scores))
    threshold = torch.cat(scores).sort(descending=True).values[count - 1]
    before = weights_of(model)
    result = unlearn(model, processor, FORGET, RETAIN, "manu", ManuSettings(formula="pooled", share=0.1))
    assert changed(model, before) <= set(result.weights) == {f"{name}.weight" for name in found}
    pruned = 0
    for name, score in zip(found, scores, strict=True):
        weight = model.get_submodule(name).weight
        kept = score < threshold
        assert torch.equal(weight[:, kept], before[f"{name}.weight"][:, kept])
        assert not weight[:, ~kept].any()
        pruned += int((~kept).sum())
    assert pruned == count


def moments_of(values):
    found = Moments()
    found.add(values)
    return found


def test_the_codes_ratios_are_taken_measure_by_measure():
    forget, retain = torch.randn(9, 5).double(), 0.5 * torch.randn(7, 5).double()

    def measures(values):
        return values.abs().mean(0), values.std(0, correction=0), values.square().mean(0).sqrt()

    expected = sum(
        2 * (one / (other + 1e-5) - 1) for one, other in zip(measures(forget), measures(retain), strict=True)
    )
    seen = [Seen(bare=moments_of(values)) for values in (forget, retain)]
    assert_close(scores("code", *seen, ManuSettings().chosen_weights), expected)
    frequency = [(values.abs() > 0.1).double().mean(0) for values in (forget, retain)]
    assert_close(scores("code", *seen, (0, 3, 0, 0)), 3 * (frequency[0] / (frequency[1] + 1e-5) - 1))


def test_the_papers_measures_set_pictures_against_none():
    sets_ = [(torch.randn(9, 5).double(), torch.randn(6, 5).double()) for _ in range(2)]

    def importance(shown, bare):
        absolute = [values.abs().mean(0) for values in (shown, bare)]
        active = [(values.abs() > 0.1).double().sum(0) for values in (shown, bare)]
        energy = [values.square().sum(0) for values in (shown, bare)]
        variance = sum(values.var(0, correction=0) for values in (shown, bare))

        def contrast(pair):
            return (pair[0] - pair[1]).abs() / (pair[0] + pair[1] + 1e-5)

        return contrast(absolute) + contrast(active) + variance.sqrt() + contrast(energy).sqrt()

    seen = [Seen(moments_of(shown), moments_of(bare)) for shown, bare in sets_]
    expected = importance(*sets_[0]) / (importance(*sets_[1]) + 1e-5)
    assert_close(scores("paper", *seen, (1, 1, 1, 1)), expected)
    nothing = torch.zeros(1, 5).double()
    tower = [Seen(pictured=moments_of(shown)) for shown, _ in sets_]
    expected = importance(sets_[0][0], nothing) / (importance(sets_[1][0], nothing) + 1e-5)
    assert_close(scores("paper", *tower, (1, 1, 1, 1)), expected)


def test_decoder_neurons_see_no_picture_in_the_code_and_both_in_the_paper():
    model, processor = fresh()
    name = "model.language_model.layers.3.mlp.down_proj"
    data = sets(processor)["forget"]
    bare = prepare([replace(item.example, images=()) for item in data], processor)
    expected = {
        "code": (None, activity(model, processor, name, bare)),
        "paper": (activity(model, processor, name, data), activity(model, processor, name, bare)),
        "pooled": (activity(model, processor, name, data), None),
    }
    for formula, sides in expected.items():
        settings = ManuSettings(formula=formula, parts=("language",))
        look = _Look(model, processor, neurons(model, settings), settings, None)
        seen = look.at(data, {matrix.name for matrix in neurons(model, settings)})[name]
        for one, values in zip((seen.pictured, seen.bare), sides, strict=True):
            assert (one is None) == (values is None)
            if one is not None:
                assert one.count == len(values)
                assert_close(one.sums[0], values.abs().sum(0), rtol=1e-4, atol=1e-4)


def test_the_three_forms_prune_other_neurons_and_look_at_other_layers():
    pruned = {}
    for formula in ("paper", "code", "pooled"):
        model, processor = fresh()
        before = weights_of(model)
        unlearn(model, processor, FORGET, RETAIN, "manu", ManuSettings(formula=formula, share=0.1, last_layers=2))
        pruned[formula] = {name: (weights_of(model)[name] != before[name]).any(0) for name in changed(model, before)}
    assert len({str(sorted((name, rows.tolist()) for name, rows in one.items())) for one in pruned.values()}) == 3
    model, _ = fresh()
    count = [len(neurons(model, ManuSettings(formula=formula, parts=("language",)))) for formula in pruned]
    assert count == [4, 3, 4]
    assert [ManuSettings(formula=formula).chosen_weights for formula in pruned] == [
        (1.0, 1.0, 1.0, 1.0),
        (2.0, 0.0, 2.0, 2.0),
        (1.0, 1.0, 1.0, 1.0),
    ]


def test_the_papers_form_needs_pictures():
    model, processor = fresh()
    with pytest.raises(UserError, match="formula=code"):
        unlearn(model, processor, FORGET, TEXT, "manu", ManuSettings(formula="paper"))
    unlearn(model, processor, TEXT, TEXT[:1], "manu", ManuSettings(parts=("language",)))


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
    for formula, passes in (("pooled", 2), ("code", 4), ("paper", 4)):
        seen = []
        settings = ManuSettings(formula=formula)
        unlearn(model, processor, FORGET, RETAIN, "manu", settings, progress=lambda *step, to=seen: to.append(step))
        assert seen == [(4 * number, 0) for number in range(1, passes + 1)]


@pytest.mark.parametrize("formula", ["paper", "code", "pooled"])
def test_padding_does_not_count(formula):
    """In one batch all but the longest example are padded, alone none is."""
    one, processor = fresh()
    other, _ = fresh()
    settings = {"share": 0.2, "parts": ("language",), "formula": formula}
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
