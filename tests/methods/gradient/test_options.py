"""Every setting of every method changes the result."""

from __future__ import annotations

import functools

import pytest
from tests.gradient import ALTERNATIVES, DEFAULTS, FORGET, GRADIENT, RETAIN, changed, forget_by, fresh, weights_of
from tests.sampling import one_in

from kvw.methods.gradient import unlearn
from kvw.methods.gradient.manu import ManuSettings

pytestmark = pytest.mark.thorough

DEFENCE = [{"layer": 0}, {"rephrased": True}, {"retain_weight": 3.0}]
CHANGES = {
    "auvic": [
        {"maps": ("q_proj",)},
        {"forget_loss": "npo"},
        {"forget_loss": "npo", "beta": 3.0},
        {"epsilon": 0.0},
        {"hidden": 4},
        {"generator_rate": 0.1},
        {"inner_steps": 3, "generator_rate": 0.1},
        {"disguises": 1},
        {"group": 2},
        {"candidates": ("Paris", "april", "author")},
        {"considered": 1},
        {"anchors": 1},
        {"temperature": 9.0},
        {"last_temperature": 9.0},
        {"anchor_weight": 0.0},
        {"consistency_weight": 30.0},
    ],
    "catnip": [
        {"beta": 0.5},
        {"reference": "before"},
        {"detach": False, "floor": 1.0},
        {"average": "answer"},
        {"average": "batch"},
        {"retain_weight": 1.0},
    ],
    "dpo": [{"alternatives": ALTERNATIVES[::-1]}, {"beta": 0.5}, {"retain_weight": 1.0}],
    "empty-response": [{"answer": "No."}, *DEFENCE],
    "error-injection": [{"alternatives": ALTERNATIVES}, *DEFENCE],
    "fact-erasure": [{"floor": 0.9}, *DEFENCE],
    "forgetting-mari": [
        {"estimator": "token"},
        {"weight": 30.0},
        {"retain_weight": 3.0},
        {"balance": "even"},
        {"detach_retain": True},
    ],
    "ga": [],
    "grad-diff": [{"retain_weight": 3.0}, {"passes": "sequential"}],
    "iau": [{"rate": 1e-2}, {"retain_weight": 0.0}, {"optimiser": "adam"}, {"steps": 2}],
    "icu": [
        {"unlearn_weight": 3.0},
        {"learn_weight": 3.0},
        {"kl_weight": 30.0},
        {"neighbours": "embedding"},
        {"similarity_floor": 1.0},
        {"bleu_floor": 1.0, "check_every": 2},
        {"memorised_floor": 1.0, "extraction_floor": 1.0},
    ],
    "idk-dpo": [{"refusals": ("No.",)}, {"beta": 0.5}, {"retain_weight": 1.0}],
    "idk-nll": [{"refusals": ("No.",)}, {"retain_weight": 3.0}],
    "kl": [{"kl_weight": 30.0}, {"kl_weight": 0.0}, {"retain_weight": 1.0}],
    "kuda": [
        {"layers": (0, 1)},
        {"layers": None, "window": 2},
        {"layers": None, "window": 1, "traced": 1},
        {"layers": None, "window": 1, "noise": 30.0},
        {"inverse_temperature": 0.5, "kick": 0.5},
        {"threshold": 0.5},
        {"soft": True},
        {"kick": 0.1},
        {"retain_weight": 3.0},
    ],
    "lens-entropy": [{"defended": 3}, *DEFENCE],
    "lens-margin": [{"defended": 2}, {"k": 2}, {"margin": 0.0}, {"differences": True}, *DEFENCE],
    "manu": [
        {"share": 0.3},
        {"formula": "paper"},
        {"formula": "pooled"},
        {"weights": (0.0, 1.0, 0.0, 0.0)},
        {"parts": ("language",)},
        {"parts": ("vision",)},
        {"last_layers": 1},
    ],
    "mmunlearner": [{"threshold": 3.0}, {"retain_weight": 3.0}, {"retain_masked": False}],
    "npo": [{"beta": 0.5}, {"retain_weight": 0.0}, {"likelihood": "batch mean"}],
    "rmu": [{"layer": 2}, {"coefficient": 20.0}, {"retain_weight": 0.0}],
    "simnpo": [{"beta": 0.5}, {"gamma": 2.0}, {"retain_weight": 1.0}],
    "task-vector": [{"scale": 0.5}],
    "undial": [{"strength": 3.0}, {"retain_weight": 1.0}],
}
OTHERS = {
    "auvic": {"candidates": ("Basil", "Ada Kent", "florist"), "hidden": 8, "disguises": 0},
    "dpo": {"alternatives": ALTERNATIVES},
    "fact-erasure": {"floor": 1e-30},
    "icu": {"similarity_floor": 0, "bleu_floor": 0, "memorised_floor": 0, "extraction_floor": 0},
    "kuda": {"layers": (1, 2)},
    "lens-margin": {"margin": 0.5},
    "manu": {"share": 0.1},
    "simnpo": {"beta": 0.1},
}
"""Settings without which a tiny model shows nothing."""
WITHOUT_EFFECT = {("manu", "batch_size"), ("iau", "batch_size"), ("auvic", "concept")}
"""Tested elsewhere, to change nothing, or only where examples have subjects."""
EPOCHS = {"icu": 3}
"""Of methods that look at the model between them."""


def run(method, settings):
    if GRADIENT[method].trains:
        return weights_of(forget_by(method, settings, epochs=EPOCHS.get(method, 1))[0])
    model, processor = fresh()
    settings = settings or GRADIENT[method].own(**OTHERS.get(method, {}))
    unlearn(model, processor, FORGET, RETAIN, method, settings)
    return weights_of(model)


@functools.cache
def usual(method):
    return run(method, None)


@pytest.mark.parametrize(
    ("method", "change"), one_in(3, [(name, one) for name, all_ in CHANGES.items() for one in all_]), ids=str
)
def test_a_setting_changes_the_result(method, change):
    settings = GRADIENT[method].own(**{**OTHERS.get(method, {}), **change})
    after = run(method, settings)
    assert any(not (value == after[name]).all() for name, value in usual(method).items())


def test_no_setting_is_left_out():
    for name, method in GRADIENT.items():
        fields = set(method.own.__dataclass_fields__)
        tested = {field for change in CHANGES[name] for field in change}
        assert fields == tested | {field for other, field in WITHOUT_EFFECT if other == name}


def test_manu_does_not_depend_on_the_batch_size():
    model, processor = fresh()
    unlearn(model, processor, FORGET, RETAIN, "manu", ManuSettings(share=0.1, batch_size=1))
    assert changed(model, usual("manu")) == set()
    assert "manu" not in DEFAULTS
