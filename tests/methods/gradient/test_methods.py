"""What every gradient method has in common: what it changes, and where its loss goes."""

from __future__ import annotations

import pytest
import torch
from tests.gradient import FORGET, GRADIENT, LORA, RETAIN, TRAINED, changed, forget_by, fresh, sets, weights_of
from tests.sampling import one_in

from kvw.errors import UserError
from kvw.evaluation.probability import answer_probabilities
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.ga import GaSettings
from kvw.methods.gradient.npo import NpoSettings
from kvw.training.settings import TrainingSettings

OTHER_ANSWERS = {"idk-nll", "empty-response", "error-injection"}
ABOUT_THE_ANSWERS = sorted(
    set(TRAINED) - OTHER_ANSWERS - {"kuda", "rmu", "lens-entropy", "lens-margin", "forgetting-mari", "auvic"}
)
"""Methods whose loss itself is about the forgotten answers; others are about states, means or other answers."""
LAYERS = {"kuda": (1, 2), "rmu": (0, 1)} | dict.fromkeys(
    ("empty-response", "error-injection", "fact-erasure", "lens-entropy", "lens-margin"), (1,)
)
"""Of methods that do not train all four layers."""


def declared(model, method, lora):
    """Names of what a method may change in the language part, spelt out."""
    names = [name for name, _ in model.named_parameters()]
    layers = LAYERS.get(method, (0, 1, 2, 3))
    found = {name for name in names if any(f"language_model.layers.{layer}." in name for layer in layers)}
    if method == "auvic":
        return {name for name in found if name.endswith(("q_proj.weight", "v_proj.weight"))}
    if method == "kuda":
        found = {name for name in found if ".mlp." in name}
    if lora is not None:
        return {name for name in found if name.endswith("proj.weight")}
    if method in LAYERS:
        return found
    return found | {"lm_head.weight", "model.language_model.norm.weight", "model.language_model.embed_tokens.weight"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "lora"),
    [(method, None) for method in TRAINED] + [(method, LORA) for method in ("kl", "kuda", "mmunlearner", "rmu")],
)
def test_after_one_step_exactly_the_declared_parameters_have_changed(method, lora):
    before = weights_of(fresh()[0])
    model, result = forget_by(method, lora=lora, batch_size=4)
    assert len(result.history) == 1
    assert changed(model, before) == declared(model, method, lora) == set(result.weights)
    assert not hasattr(model, "peft_config")
    assert not model.training


@pytest.mark.thorough
@pytest.mark.parametrize("method", one_in(2, sorted(set(TRAINED) - {"task-vector", "auvic"})))
def test_the_loss_falls_and_the_forgotten_answers_become_less_probable(method):
    """Steps so small, with all examples in each, that the gradient alone says where the loss goes."""
    model, processor = fresh(dtype=torch.float64)
    examples = sets(processor)["forget"]
    before = sum(found.log_probability for found in answer_probabilities(model, processor, examples))
    model, result = forget_by(method, batch_size=4, epochs=3, learning_rate=1e-6, dtype=torch.float64)
    kind = GRADIENT[method].own
    weights = {"forget": 1.0, "retain": 1.0 if method in {"icu", "kl"} else getattr(kind(), "retain_weight", 0.0)}
    totals = [sum(weights[side] * step.losses.get(side, 0.0) for side in weights) for step in result.history]
    assert totals[2] < totals[1] < totals[0]
    after = sum(found.log_probability for found in answer_probabilities(model, processor, examples))
    if method in ABOUT_THE_ANSWERS:
        assert after < before


def test_a_negated_task_vector_makes_the_forgotten_answers_less_probable():
    model, processor = fresh()
    examples = sets(processor)["forget"]
    before = sum(found.log_probability for found in answer_probabilities(model, processor, examples))
    model, _ = forget_by("task-vector", batch_size=4)
    assert sum(found.log_probability for found in answer_probabilities(model, processor, examples)) < before


def test_the_names_are_lower_case_and_settings_have_defaults():
    assert len(GRADIENT) == 24
    assert all(name == name.lower() for name in GRADIENT)
    assert all(method.own() for method in GRADIENT.values())
    assert [name for name, method in GRADIENT.items() if not method.trains] == ["iau", "manu"]


@pytest.mark.parametrize(("wrong", "right"), [("NPO", "npo"), ("grad_dif", "grad-diff"), ("mmunlerner", "mmunlearner")])
def test_a_wrong_name_brings_the_right_one(wrong, right):
    with pytest.raises(UserError, match=f"did you mean '{right}'"):
        unlearn(None, None, FORGET, RETAIN, wrong)


def test_a_name_like_no_other_brings_the_list():
    with pytest.raises(UserError, match=r"(?s)no method 'xyz'.*methods: kvw, subspace.*dpo, empty-response"):
        unlearn(None, None, FORGET, RETAIN, "xyz")


def test_a_method_without_gradients_is_refused():
    with pytest.raises(UserError, match="'kvw' is no gradient method"):
        unlearn(None, None, FORGET, RETAIN, "kvw")


def test_what_makes_no_sense_is_refused_before_anything_runs():
    model, processor = fresh()
    before = weights_of(model)
    with pytest.raises(UserError, match="forget set is empty"):
        unlearn(model, processor, [], RETAIN, "ga")
    with pytest.raises(UserError, match=r"not settings of 'npo'(.|\n)*GaSettings"):
        unlearn(model, processor, FORGET, RETAIN, "npo", GaSettings())
    with pytest.raises(UserError, match="'manu' does not train"):
        unlearn(model, processor, FORGET, RETAIN, "manu", None, TrainingSettings())
    assert changed(model, before) == set()


@pytest.mark.parametrize("name", sorted(GRADIENT))
def test_numbers_that_make_no_sense_are_refused(name):
    kind = GRADIENT[name].own
    for field, value in {"beta": 0, "strength": -1, "scale": 0, "coefficient": 0, "threshold": -1}.items():
        if field in kind.__dataclass_fields__:
            with pytest.raises(UserError, match=field):
                kind(**{field: value})
    for field in ("retain_weight", "kl_weight", "gamma"):
        if field in kind.__dataclass_fields__:
            with pytest.raises(UserError, match=field):
                kind(**{field: -0.5})


def test_npo_says_which_likelihoods_there_are():
    with pytest.raises(UserError, match=r"likelihood must be one of: sequence sum, batch mean"):
        NpoSettings(likelihood="token")
