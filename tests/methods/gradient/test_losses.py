"""Each method's loss against its formula, computed here from plain logits."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.gradient import (
    ALTERNATIVES,
    FORGET,
    LORA,
    RETAIN,
    changed,
    forget_by,
    fresh,
    gradients_of,
    sets,
    training,
    weights_of,
)
from torch.nn.functional import log_softmax

from kvw.data import Example, answer_batch, prepare
from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.catnip import CatnipSettings, catnip, log_reverse
from kvw.methods.gradient.dpo import DpoSettings, IdkDpoSettings, dpo, idk_dpo
from kvw.methods.gradient.fisher import fisher_information
from kvw.methods.gradient.ga import GaSettings, ga
from kvw.methods.gradient.grad_diff import GradDiffSettings, grad_diff
from kvw.methods.gradient.idk_nll import IdkNllSettings, idk_nll
from kvw.methods.gradient.kl import KlSettings, kl
from kvw.methods.gradient.mmunlearner import MmUnlearnerSettings, mmunlearner
from kvw.methods.gradient.npo import NpoSettings, npo
from kvw.methods.gradient.refusals import REFUSALS
from kvw.methods.gradient.rmu import RmuSettings, rmu, rmu_layers
from kvw.methods.gradient.simnpo import SimNpoSettings, simnpo
from kvw.methods.gradient.task_vector import TaskVectorSettings
from kvw.methods.gradient.undial import UndialSettings, undial
from kvw.training.answers import answers
from kvw.training.loop import add_gradients, train
from kvw.training.planting import finetune
from kvw.training.trainee import Reference, in_training


def token_log_probabilities(model, processor, examples):
    """One tensor (answer tokens, vocabulary) and one of the tokens for each example, from the whole logits."""
    found = []
    for item in prepare(examples, processor):
        batch = answer_batch([item], processor)
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
        labels = batch.pop("labels")[0]
        with torch.no_grad():
            logits = model(**batch).logits[0]
        positions = [place for place in range(len(labels)) if labels[place] != -100]
        found.append((logits[[place - 1 for place in positions]], labels[positions]))
    return found


KEPT = {}


def plain(examples=FORGET):
    """The same of the untrained model."""
    key = tuple((example.question, example.answer) for example in examples)
    if key not in KEPT:
        KEPT[key] = token_log_probabilities(*fresh(dtype=torch.float64), examples)
    return KEPT[key]


def log_likelihoods(examples=FORGET):
    found = plain(examples)
    return [float(sum(log_softmax(row, -1)[token] for row, token in zip(*entry, strict=True))) for entry in found]


def lengths(examples=FORGET):
    return [len(tokens) for _, tokens in plain(examples)]


def test_ga_is_minus_the_token_mean():
    _, value = gradients_of(lambda trainee: ga(trainee, GaSettings()))
    assert value == pytest.approx(sum(log_likelihoods()) / sum(lengths()), rel=1e-6)


def test_npo_starts_as_ga_times_the_mean_answer_length():
    """d/dr of -(2/beta) log sigmoid(-beta r) is 1 at r = 0; NPO averages over examples where GA averages tokens."""
    plain_gradient, _ = gradients_of(lambda trainee: ga(trainee, GaSettings()))
    for beta in (0.1, 0.7):
        gradient, value = gradients_of(lambda trainee, beta=beta: npo(trainee, NpoSettings(beta=beta)))
        assert value == pytest.approx(2 / beta * 0.6931471805599453)
        factor = sum(lengths()) / len(FORGET)
        assert set(gradient) == set(plain_gradient)
        for name, expected in plain_gradient.items():
            # The models' norms compute in float32 even where the weights are float64.
            assert float((gradient[name] - factor * expected).norm()) < 1e-5 * float(expected.norm())


def moved(build, side="forget"):
    """The mean of a term after the model has left its reference, and the model that it is then."""
    model, processor = fresh(dtype=torch.float64)
    data = sets(processor)
    with in_training(model, processor, training(), data) as trainee:
        objective = build(trainee)
        with torch.no_grad():
            model.lm_head.weight.mul_(0.7)
            model.model.language_model.layers[0].mlp.down_proj.weight.mul_(0.5)
        value = add_gradients(trainee, objective.term(side), data[side], range(4))
    return value, model, processor


def by_hand(model, processor, examples=FORGET):
    found = token_log_probabilities(model, processor, examples)
    return torch.tensor(
        [float(sum(log_softmax(row, -1)[token] for row, token in zip(*entry, strict=True))) for entry in found],
        dtype=torch.float64,
    )


def test_npo_by_hand():
    value, model, processor = moved(lambda trainee: npo(trainee, NpoSettings(beta=0.3)))
    ratios = by_hand(model, processor) - torch.tensor(log_likelihoods())
    expected = (2 / 0.3) * torch.log1p(torch.exp(ratios) ** 0.3).mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_npo_of_batch_means_by_hand():
    """The mean over the batches of two, each with one ratio of token means."""
    value, model, processor = moved(lambda trainee: npo(trainee, NpoSettings(beta=0.3, likelihood="batch mean")))
    ratios = by_hand(model, processor) - torch.tensor(log_likelihoods())
    batches = [ratios[rows].sum() / sum(lengths()[rows]) for rows in (slice(0, 2), slice(2, 4))]
    expected = sum((2 / 0.3) * torch.log1p(torch.exp(0.3 * ratio)) for ratio in batches) / 2
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_simnpo_by_hand():
    value, model, processor = moved(lambda trainee: simnpo(trainee, SimNpoSettings(beta=0.4, gamma=0.2)))
    means = by_hand(model, processor) / torch.tensor(lengths())
    expected = -(2 / 0.4) * torch.sigmoid(-0.4 * means - 0.2).log().mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


def token_probabilities(model, processor, examples=FORGET):
    """For each example the probabilities of its answer tokens, float64."""
    found = token_log_probabilities(model, processor, examples)
    return [log_softmax(row.double(), -1).gather(-1, tokens[:, None])[:, 0].exp() for row, tokens in found]


@pytest.mark.parametrize("average", ["token", "batch", "answer"])
def test_catnip_by_hand(average):
    value, model, processor = moved(lambda trainee: catnip(trainee, CatnipSettings(beta=0.5, average=average)))
    found = token_probabilities(model, processor)
    if average == "answer":
        found = [one.prod()[None] for one in found]
    losses = [-(2 / 0.5) * torch.sigmoid(-0.5 * torch.logit(one)).log() for one in found]
    expected = torch.cat(losses).mean() if average == "batch" else torch.stack([one.mean() for one in losses]).mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_catnip_weighs_each_token_by_twice_its_probability():
    """With beta 1 the gradient by log p is 2 p, and 2 p / (1 - p) through the reference, too."""
    model, processor = fresh(dtype=torch.float64)
    found = token_probabilities(model, processor)
    data = sets(processor)
    for detach in (True, False):
        weights = [2 * one if detach else 2 * one / (1 - one) for one in found]
        gradient, _ = gradients_of(lambda trainee, detach=detach: catnip(trainee, CatnipSettings(detach=detach)))
        with in_training(model, processor, training(), data) as trainee:
            scored = answers(model, trainee.rows(data["forget"], range(len(FORGET))).batch)
            means = scored.per_row(torch.cat(weights) * -scored.losses) / scored.lengths
            names, parameters = zip(*trainee.parameters.items(), strict=True)
            by_hand_ = torch.autograd.grad(means.mean(), parameters, allow_unused=True)
        for name, expected in zip(names, by_hand_, strict=True):
            if expected is not None and float(expected.norm()) > 0:
                assert float((gradient[name] - expected).norm()) < 1e-5 * float(expected.norm())


def test_catnip_with_small_beta_is_ascent():
    """The weight of every token goes to 1: GA, averaged over answers."""
    gradient, _ = gradients_of(lambda trainee: catnip(trainee, CatnipSettings(beta=1e-6, average="batch")))
    expected, _ = gradients_of(lambda trainee: ga(trainee, GaSettings()))
    for name, value in expected.items():
        assert float((gradient[name] - value).norm()) < 1e-4 * float(value.norm())


def test_catnip_of_whole_answers_with_the_reference_before_is_npo():
    settings = CatnipSettings(beta=0.3, reference="before", average="answer")
    value, model, processor = moved(lambda trainee: catnip(trainee, settings))
    ratios = by_hand(model, processor) - torch.tensor(log_likelihoods())
    expected = (2 / 0.3) * torch.log1p(torch.exp(ratios) ** 0.3).mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_the_reverse_of_a_certain_token_is_the_floor():
    log_p = torch.tensor([0.0, -1e-9, -1e-3, -30.0], requires_grad=True)
    reverse = log_reverse(log_p, 1e-6)
    assert reverse.tolist() == pytest.approx([-13.8155, -13.8155, -6.9083, 0.0], abs=1e-3)
    (gradient,) = torch.autograd.grad(reverse.sum(), log_p)
    assert gradient.isfinite().all()


def test_dpo_by_hand():
    value, model, processor = moved(lambda trainee: dpo(trainee, DpoSettings(ALTERNATIVES, beta=0.3)))
    pairs = zip(FORGET, ALTERNATIVES, strict=True)
    others = [Example(example.question, answer, example.images) for example, answer in pairs]
    lost = by_hand(model, processor) - torch.tensor(log_likelihoods())
    won = by_hand(model, processor, others) - torch.tensor(log_likelihoods(others))
    expected = -(1 / 0.3) * torch.sigmoid(0.3 * (won - lost)).log().mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


def test_undial_by_hand():
    value, model, processor = moved(lambda trainee: undial(trainee, UndialSettings(strength=3.0)))
    total, tokens = 0.0, 0
    for (teacher, targets), (logits, _) in zip(plain(), token_log_probabilities(model, processor, FORGET), strict=True):
        for row, token, student in zip(teacher, targets, logits, strict=True):
            adjusted = row.clone()
            adjusted[token] -= 3.0
            total -= float((torch.softmax(adjusted, -1) * log_softmax(student, -1)).sum())
            tokens += 1
    assert value == pytest.approx(total / tokens, rel=1e-5)


def test_kl_by_hand_and_zero_where_the_model_is_the_reference():
    gradient, value = gradients_of(lambda trainee: kl(trainee, KlSettings()), "retain")
    assert value == pytest.approx(0.0, abs=1e-12)
    assert max(float(part.abs().max()) for part in gradient.values()) < 1e-12
    value, model, processor = moved(lambda trainee: kl(trainee, KlSettings(kl_weight=2.0)), "retain")
    total, tokens = 0.0, 0
    for (teacher, _), (logits, _) in zip(plain(RETAIN), token_log_probabilities(model, processor, RETAIN), strict=True):
        wanted = log_softmax(teacher, -1)
        total += float((wanted.exp() * (wanted - log_softmax(logits, -1))).sum())
        tokens += len(teacher)
    assert value == pytest.approx(2 * total / tokens, rel=1e-5)


def test_kl_can_add_the_retain_loss():
    _, value = gradients_of(lambda trainee: kl(trainee, KlSettings(retain_weight=2.0)), "retain")
    expected = -2 * sum(log_likelihoods(RETAIN)) / sum(lengths(RETAIN))
    assert value == pytest.approx(expected, rel=1e-6)


def hidden_states(model, processor, examples, layer):
    """States after a layer at answer-predicting positions, by transformers' own output."""
    found = []
    for item in prepare(examples, processor):
        batch = answer_batch([item], processor)
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
        labels = batch.pop("labels")[0]
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True).hidden_states[layer + 1][0]
        found += [states[place - 1] for place in range(len(labels)) if labels[place] != -100]
    return torch.stack(found)


def test_rmu_by_hand():
    settings = RmuSettings(layer=2, coefficient=3.0)
    drawn = torch.rand(48, generator=torch.Generator().manual_seed(0))
    target = (3.0 * drawn / drawn.norm()).double()
    assert float(target.norm()) == pytest.approx(3.0)
    _, value = gradients_of(lambda trainee: rmu(trainee, settings))
    states = hidden_states(*fresh(dtype=torch.float64), FORGET, 2)
    assert value == pytest.approx(float((states - target).square().sum(1).mean()), rel=1e-6)
    value, model, processor = moved(lambda trainee: rmu(trainee, settings), "retain")
    original = hidden_states(*fresh(dtype=torch.float64), RETAIN, 2)
    states = hidden_states(model, processor, RETAIN, 2)
    assert value == pytest.approx(float((states - original).square().sum(1).mean()), rel=1e-6)


def test_rmu_trains_three_layers_at_the_papers_depth():
    model, _ = fresh()
    assert rmu_layers(model, RmuSettings()) == (0, 1)
    assert rmu_layers(model, RmuSettings(layer=3)) == (1, 3)
    with pytest.raises(UserError, match="no layer 4"):
        rmu_layers(model, RmuSettings(layer=4))
    with pytest.raises(UserError, match="layer must be"):
        RmuSettings(layer=-1)


def test_grad_diff_of_weight_zero_is_ga():
    one, _ = forget_by("grad-diff", GradDiffSettings(retain_weight=0.0))
    other, _ = forget_by("ga")
    assert changed(one, weights_of(other)) == set()


def test_grad_diff_adds_the_retain_loss():
    _, value = gradients_of(lambda trainee: grad_diff(trainee, GradDiffSettings()), "retain")
    assert value == pytest.approx(-sum(log_likelihoods(RETAIN)) / sum(lengths(RETAIN)), rel=1e-6)


def test_idk_nll_learns_refusals_to_the_forget_questions():
    model, processor = fresh()
    data = sets(processor)
    with in_training(model, processor, training(), data) as trainee:
        objective = idk_nll(trainee, IdkNllSettings())
    assert [item.example.question for item in objective.examples] == [example.question for example in FORGET]
    assert {item.example.answer for item in objective.examples} <= set(REFUSALS)
    assert len({item.example.answer for item in objective.examples}) > 1
    _, value = gradients_of(lambda trainee: idk_nll(trainee, IdkNllSettings(refusals=("No idea.",))))
    refused = [Example(example.question, "No idea.", example.images) for example in FORGET]
    assert value == pytest.approx(-sum(log_likelihoods(refused)) / sum(lengths(refused)), rel=1e-6)


@pytest.mark.thorough
def test_idk_dpo_is_dpo_with_refusals():
    refusals = ("I don't know.",)
    one, value = gradients_of(lambda trainee: idk_dpo(trainee, IdkDpoSettings(refusals)))
    other, expected = gradients_of(lambda trainee: dpo(trainee, DpoSettings(refusals * 4)))
    assert value == expected == pytest.approx(0.6931471805599453 / 0.1)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_alternatives_and_refusals_must_be_there():
    model, processor = fresh()
    with pytest.raises(UserError, match="0 alternatives for 4 examples"):
        unlearn(model, processor, FORGET, RETAIN, "dpo", None, training())
    with pytest.raises(UserError, match="no refusal"):
        unlearn(model, processor, FORGET, RETAIN, "idk-nll", IdkNllSettings(refusals=()), training())


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dpo", DpoSettings(("word " * 600,) * 4)),
        ("idk-dpo", IdkDpoSettings(("word " * 600,))),
        ("idk-nll", IdkNllSettings(refusals=("word " * 600,))),
    ],
)
def test_an_alternative_that_does_not_fit_is_a_user_error(method, settings):
    model, processor = fresh()
    model.config.text_config.max_position_embeddings = 512
    with pytest.raises(UserError, match="the prompt with its answer is longer than the model's context"):
        unlearn(model, processor, FORGET, RETAIN, method, settings, training())


def test_the_refusals_are_different_and_short():
    assert len(set(REFUSALS)) == len(REFUSALS) >= 10
    assert all(refusal.endswith(".") and len(refusal) < 80 for refusal in REFUSALS)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_all_ways_to_ask_the_reference_agree(lora):
    """Numbers kept from before training, the adapters switched off, a frozen copy, and another model given."""
    model, processor = fresh(dtype=torch.float64)
    other = copy.deepcopy(model)
    data = sets(processor)
    with in_training(model, processor, training(lora=lora), data) as trainee:
        kept = trainee.reference_log_likelihoods(data["forget"])
        reference = trainee.reference()
        with torch.no_grad():
            for parameter in trainee.parameters.values():
                parameter.add_(0.05)
        rows = trainee.rows(data["forget"], range(4))
        now = answers(model, rows.batch).log_likelihoods
        with reference.model() as original:
            live = answers(original, rows.batch).log_likelihoods
            assert not live.requires_grad
        given = Reference(other)
        with given.model() as original:
            foreign = answers(original, rows.batch).log_likelihoods
        assert model.training
    assert not torch.allclose(now, kept, rtol=1e-3)
    for found in (live, foreign, torch.tensor(log_likelihoods(), dtype=torch.float64)):
        torch.testing.assert_close(found, kept, rtol=1e-6, atol=0)


def test_another_reference_may_be_given():
    model, processor = fresh()
    other, _ = fresh()
    with torch.no_grad():
        other.lm_head.weight.mul_(0.5)
    result = unlearn(model, processor, FORGET, RETAIN, "npo", None, training(), reference=other)
    _, usual = forget_by("npo")
    assert result.history[0].losses["forget"] != pytest.approx(usual.history[0].losses["forget"], rel=1e-3)


def test_fisher_information_is_the_mean_of_squared_gradients_of_single_examples():
    model, processor = fresh(dtype=torch.float64)
    data = sets(processor)
    with in_training(model, processor, training(), data) as trainee:
        found = fisher_information(trainee, data["forget"])
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    expected = torch.zeros_like(found[name])
    for item in data["forget"]:
        batch = answer_batch([item], processor)
        batch["pixel_values"] = batch["pixel_values"].double()
        model.zero_grad()
        torch.autograd.backward(model(**batch).loss)
        expected += dict(model.named_parameters())[name].grad.square() / 4
    torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_weights_outside_mmunlearners_mask_stay_bit_for_bit(lora):
    """With weight decay and several steps, so that AdamW has both reasons to move them."""
    model, processor = fresh()
    data = sets(processor)
    with in_training(model, processor, training(lora=lora, weight_decay=0.5, epochs=2), data) as trainee:
        objective = mmunlearner(trainee, MmUnlearnerSettings())
        before = {name: parameter.detach().clone() for name, parameter in trainee.parameters.items()}
        train(trainee, objective, data, about={})
        assert set(objective.masks) == set(trainee.parameters)
        chosen = 0
        for name, mask in objective.masks.items():
            after = trainee.parameters[name].detach()
            assert torch.equal(after[~mask], before[name][~mask])
            assert mask.any() == (not torch.equal(after, before[name]))
            chosen += int(mask.sum())
        total = sum(mask.numel() for mask in objective.masks.values())
    assert 0.05 * total < chosen < 0.95 * total


def test_a_mask_that_chooses_nothing_is_an_error():
    with pytest.raises(UserError, match="chooses no weight"):
        unlearn(*fresh(), FORGET, FORGET, "mmunlearner", MmUnlearnerSettings(threshold=1.5), training())
    model, processor = fresh()
    with pytest.raises(UserError, match="needs examples of both sets"):
        unlearn(model, processor, FORGET, [], "mmunlearner", None, training())


@pytest.mark.thorough
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_task_vectors_are_negated(lora):
    original = weights_of(fresh(dtype=torch.float64)[0])
    learnt, processor = fresh(dtype=torch.float64)
    finetune(learnt, processor, FORGET, training(batch_size=4, lora=lora))
    forgotten, _ = forget_by("task-vector", TaskVectorSettings(scale=0.5), dtype=torch.float64, batch_size=4, lora=lora)
    for name, value in forgotten.state_dict().items():
        expected = original[name] - 0.5 * (learnt.state_dict()[name] - original[name])
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    assert changed(forgotten, original)
