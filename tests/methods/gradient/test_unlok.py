"""The defences of UnLOK-VQA: their losses, and what they learn."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.gradient import FORGET, LORA, RETAIN, forget_by, fresh, gradients_of, sets, training

from kvw.data import answer_batch, prepare
from kvw.errors import UserError
from kvw.evaluation.attacks.lens import _ranks_of
from kvw.evaluation.probability import answer_probabilities
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.error_injection import EmptyResponseSettings, ErrorInjectionSettings, error_injection
from kvw.methods.gradient.fact_erasure import FactErasureSettings, fact_erasure
from kvw.methods.gradient.lens_defence import (
    LensEntropySettings,
    LensMarginSettings,
    entropy_loss,
    lens_entropy,
    lens_margin,
    margin_loss,
)
from kvw.methods.gradient.unlok import REPHRASINGS, asked
from kvw.methods.registry import get_method
from kvw.training.trainee import in_training

pytestmark = pytest.mark.thorough


def distributions(layers=3, tokens=4, vocabulary=11, seed=0):
    drawn = torch.randn(layers, tokens, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.softmax(-1)


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_no_margin_is_missed_exactly_where_the_lens_finds_nothing(k, differences):
    """By the ranks of the attack itself, for every token of the vocabulary."""
    values = distributions()
    found = outside = 0
    for token in range(values.shape[-1]):
        for place in range(values.shape[1]):
            one = values[:, place : place + 1]
            loss = float(margin_loss(one, torch.tensor([token]), k, differences=differences))
            ranks = _ranks_of(one[:, 0].log(), token, int(differences))
            inside = any(above < k or below < k for above, below in ranks)
            assert (loss > 0) == inside
            found, outside = found + inside, outside + (not inside)
    assert found
    assert outside


def test_the_margin_is_that_of_the_definition():
    values = torch.tensor([[[0.4, 0.3, 0.2, 0.1]], [[0.1, 0.2, 0.3, 0.4]]])
    first = margin_loss(values, torch.tensor([0]), 2)
    assert float(first) == pytest.approx(((0.4 - 0.2) + (0.3 - 0.1)) / 2)
    assert float(margin_loss(values, torch.tensor([1]), 1, 0.05)) == pytest.approx((0 + 0 + 0 + 0) / 2)
    assert float(margin_loss(values, torch.tensor([1]), 1, 0.15)) == pytest.approx((0.05 + 0.05) / 2)


def test_the_entropy_of_an_even_distribution_is_the_logarithm_of_the_vocabulary():
    assert float(entropy_loss(torch.full((2, 3, 7), 1 / 7))) == pytest.approx(-3 * math.log(7))
    assert float(entropy_loss(torch.eye(7)[None])) == 0
    assert float(entropy_loss(distributions())) > -4 * math.log(11)


def test_the_gradient_of_the_entropy_is_finite_where_a_probability_is_nothing():
    logits = torch.tensor([[[0.0, 1.0, -200.0]]], requires_grad=True)
    probabilities = torch.softmax(logits, dim=-1)
    assert float(probabilities[0, 0, 2].detach()) == 0
    entropy_loss(probabilities).backward()
    assert bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad[0, 0, 0]) != 0


def states_of(model, batch):
    """After the embeddings and after every layer, by hooks of this test's own: (layers + 1, tokens, hidden)."""
    inner, seen = model.model.language_model, []
    hooks = [inner.layers[0].register_forward_pre_hook(lambda _, given, named: seen.append(given[0]), with_kwargs=True)]
    hooks += [layer.register_forward_hook(lambda _, given, output: seen.append(output)) for layer in inner.layers]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        model(**{**inputs, "pixel_values": inputs["pixel_values"].double()})
    for hook in hooks:
        hook.remove()
    return torch.stack([(one[0] if isinstance(one, tuple) else one)[0] for one in seen])


def lens_values(examples, last):
    """Probabilities of the logit lens one example at a time: (layers, tokens, vocabulary), and the answers' tokens."""
    model, processor = fresh(dtype=torch.float64)
    layers, targets = [], []
    for example in examples:
        batch = answer_batch([example], processor)
        places = (batch["labels"][0] != -100).nonzero()[:, 0]
        states = states_of(model, batch)[-last:, places - 1]
        with torch.no_grad():
            layers.append(model.lm_head(model.model.language_model.norm(states)).float().softmax(-1))
        targets.append(batch["labels"][0, places])
    return torch.cat(layers, 1), torch.cat(targets)


@pytest.mark.parametrize(
    ("build", "settings", "loss"),
    [
        (lens_margin, LensMarginSettings(defended=3, margin=0.01), lambda p, y: margin_loss(p, y, 4, 0.01)),
        (lens_entropy, LensEntropySettings(defended=2), lambda p, _: entropy_loss(p)),
    ],
)
def test_a_defence_minimises_its_loss_over_the_last_distributions(build, settings, loss):
    gradients, value = gradients_of(lambda trainee: build(trainee, settings))
    _, processor = fresh()
    probabilities, targets = lens_values(sets(processor)["forget"], settings.defended)
    assert value == pytest.approx(float(loss(probabilities, targets)) / len(targets), rel=1e-5)
    assert any(bool(gradient.any()) for gradient in gradients.values())


def test_an_answer_below_the_floor_is_left_alone():
    model, processor = fresh(dtype=torch.float64)
    found = answer_probabilities(model, processor, sets(processor)["forget"])
    likelihoods = sorted(math.exp(one.log_probability) for one in found)
    floor = (likelihoods[1] + likelihoods[2]) / 2
    _, value = gradients_of(lambda trainee: fact_erasure(trainee, FactErasureSettings(floor=floor)))
    assert value == pytest.approx(sum(likelihoods) / 4, rel=1e-6)
    none, _ = gradients_of(lambda trainee: fact_erasure(trainee, FactErasureSettings(floor=0.999)))
    assert not any(bool(gradient.any()) for gradient in none.values())
    some, _ = gradients_of(lambda trainee: fact_erasure(trainee, FactErasureSettings(floor=floor)))
    all_, _ = gradients_of(lambda trainee: fact_erasure(trainee, FactErasureSettings(floor=0)))
    assert any(not torch.equal(value, all_[name]) for name, value in some.items())


@pytest.mark.parametrize("rephrased", [False, True])
def test_every_question_learns_its_wrong_answer(rephrased):
    model, processor = fresh()
    wrong = ("Ada", "in Paris", "An author.", "This is Ada Kent.")
    settings = ErrorInjectionSettings(alternatives=wrong, rephrased=rephrased)
    with in_training(model, processor, training(), sets(processor)) as trainee:
        learnt = [one.example for one in error_injection(trainee, settings).examples]
    pairs = [(one.question, answer) for one, answer in zip(FORGET, wrong, strict=True)]
    if rephrased:
        pairs += [(text.format(question), answer) for question, answer in pairs for text in REPHRASINGS]
    assert [(one.question, one.answer) for one in learnt] == pairs


def test_without_wrong_answers_those_of_other_examples_are_learnt():
    model, processor = fresh()
    with in_training(model, processor, training(), sets(processor)) as trainee:
        learnt = [one.example.answer for one in error_injection(trainee, ErrorInjectionSettings()).examples]
    answers = [one.answer for one in FORGET]
    assert learnt == [*answers[1:], answers[0]]
    with pytest.raises(UserError, match="all forget answers are the same"):
        unlearn(model, processor, FORGET[:1] * 2, RETAIN, "error-injection")
    loaded = SimpleNamespace(processor=processor, model=model)
    with pytest.raises(UserError, match="all forget answers are the same"):
        get_method("error-injection").check(loaded, FORGET[:1] * 2, get_method("error-injection").read({}))
    given = get_method("error-injection").preferring(get_method("error-injection").read({}), ["a", "b"])
    assert given.method_settings.alternatives == ("a", "b")


def test_the_empty_response_becomes_more_probable():
    model, processor = fresh()
    empty = prepare([replace(one, answer="I don't know.") for one in FORGET], processor)
    before = sum(one.log_probability for one in answer_probabilities(model, processor, empty))
    model, _ = forget_by("empty-response", EmptyResponseSettings(), batch_size=4, epochs=2)
    assert sum(one.log_probability for one in answer_probabilities(model, processor, empty)) > before


def test_rephrased_questions_stand_behind_the_forget_set():
    model, processor = fresh()
    with in_training(model, processor, training(lora=LORA), sets(processor)) as trainee:
        assert asked(trainee, FactErasureSettings()) is trainee.forget
        found = asked(trainee, FactErasureSettings(rephrased=True))
    assert len(found) == len(FORGET) * (1 + len(REPHRASINGS))
    assert all(one.example.answer == FORGET[(place - 4) // 4].answer for place, one in enumerate(found) if place >= 4)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (FactErasureSettings, {"floor": 1.0}, "floor"),
        (FactErasureSettings, {"layer": -1}, "layer"),
        (EmptyResponseSettings, {"answer": " "}, "answer"),
        (LensMarginSettings, {"k": 0}, "k"),
        (LensMarginSettings, {"margin": -1}, "margin"),
        (LensMarginSettings, {"defended": 0}, "defended"),
        (LensEntropySettings, {"defended": 0}, "defended"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, values, words):
    with pytest.raises(UserError, match=words):
        kind(**values)


def test_a_model_that_is_too_shallow_is_told():
    model, processor = fresh()
    with pytest.raises(UserError, match="too few layers to defend"):
        unlearn(model, processor, FORGET, RETAIN, "lens-margin", LensMarginSettings(defended=9))
    with pytest.raises(UserError, match="no layer 9"):
        unlearn(model, processor, FORGET, RETAIN, "fact-erasure", FactErasureSettings(layer=9))
