"""Forgetting-MarI against its formula, computed in one graph, and the bounds that the formula obeys."""

from __future__ import annotations

import pytest
import torch
from tests.gradient import FORGET, RETAIN, fresh, gradients_of, training

from kvw.data import prepare
from kvw.methods.gradient.forgetting_mari import ForgettingMariSettings, forgetting_mari, marginal_information
from kvw.training.answers import answers
from kvw.training.loop import add_gradients
from kvw.training.losses import descent
from kvw.training.objective import Objective
from kvw.training.trainee import in_training

SIDES = ("forget", "retain")
ESTIMATORS = ("pooled", "token")


def stepped(settings, *, forget=FORGET, batch_size=4):
    """Gradients of one step over both sets, and the value of each term."""
    model, processor = fresh(dtype=torch.float64)
    data = {"forget": prepare(forget, processor), "retain": prepare(RETAIN, processor)}
    with in_training(model, processor, training(batch_size=batch_size), data) as trainee:
        objective = forgetting_mari(trainee, settings)
        objective.before_step({side: range(len(data[side])) for side in SIDES})
        values = [add_gradients(trainee, objective.term(side), data[side], range(len(data[side]))) for side in SIDES]
        return {name: one.grad.clone() for name, one in trainee.parameters.items() if one.grad is not None}, values


def in_one_graph(settings):
    """The same from the means of all answers at once, with I and L_r."""
    model, processor = fresh(dtype=torch.float64)
    data = {"forget": prepare(FORGET, processor), "retain": prepare(RETAIN, processor)}
    with in_training(model, processor, training(), data) as trainee:
        scored = {side: answers(model, trainee.rows(data[side], range(4)).batch) for side in SIDES}
        means, counts = {}, {}
        for side, one in scored.items():
            places = [place for item in data[side] for place in range(len(item.answer_ids))]
            if settings.estimator == "pooled":
                places = [0] * len(places)
            common = min(max(len(item.answer_ids) for item in data[other]) for other in SIDES)
            rows = [[row for row, own in enumerate(places) if own == place] for place in range(common)]
            rows = [some for some in rows if some]
            means[side] = torch.stack([one.logits.softmax(-1)[some].mean(0) for some in rows])
            counts[side] = torch.tensor([float(len(some)) for some in rows], dtype=torch.float64)
        if settings.detach_retain:
            means["retain"] = means["retain"].detach()
        shared = marginal_information(
            means["retain"], means["forget"], counts["retain"], counts["forget"], settings.balance
        ).mean()
        kept = scored["retain"].losses.mean()
        loss = settings.weight * shared + settings.retain_weight * kept
        found = torch.autograd.grad(loss, list(trainee.parameters.values()), allow_unused=True)
        return dict(zip(trainee.parameters, found, strict=True)), float(shared.detach()), float(kept.detach())


def assert_equal(found, expected, tolerance=1e-5):
    for name, value in expected.items():
        if value is not None and float(value.norm()) > 1e-12:
            assert float((found[name] - value).norm()) < tolerance * float(value.norm()), name


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_is_that_of_the_whole_however_the_step_is_cut(estimator, detach):
    settings = ForgettingMariSettings(estimator=estimator, weight=3.0, retain_weight=0.5, detach_retain=detach)
    expected, shared, kept = in_one_graph(settings)
    for batch_size in (1, 4):
        found, values = stepped(settings, batch_size=batch_size)
        assert_equal(found, expected)
        assert values == [pytest.approx(3.0 * shared, rel=1e-6), pytest.approx(0.5 * kept, rel=1e-6)]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_forget_set_that_says_what_the_retain_set_says_costs_nothing(estimator):
    found, values = stepped(ForgettingMariSettings(estimator=estimator, weight=5.0), forget=RETAIN)
    assert values[0] == pytest.approx(0, abs=1e-12)
    kept, loss = gradients_of(lambda trainee: Objective(forget=None, retain=descent(1.0)), side="retain")
    assert values[1] == pytest.approx(loss, rel=1e-6)
    assert_equal(found, kept, tolerance=1e-6)


def test_what_is_lost_is_between_0_and_its_bounds():
    generator = torch.Generator().manual_seed(0)
    retain, forget = (torch.rand(6, 9, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(2))
    some, many = torch.full((6,), 3.0, dtype=torch.float64), torch.full((6,), 5.0, dtype=torch.float64)
    found = marginal_information(retain, forget, many, some, "data")
    share, weight = 3 / 8, 5 / 13
    assert bool((found > 0).all())

    def entropy(p):
        return -(p * p.log()).sum(-1)

    middle = weight * retain + (1 - weight) * forget
    divergence = entropy(middle) - weight * entropy(retain) - (1 - weight) * entropy(forget)
    assert bool((found <= share * divergence).all())
    assert bool((found <= -(weight * torch.tensor(weight).log() + (1 - weight) * torch.tensor(1 - weight).log())).all())
    assert marginal_information(retain, retain, many, some, "even").tolist() == pytest.approx([0.0] * 6, abs=1e-15)
    certain = torch.eye(9, dtype=torch.float64)[:6].requires_grad_()
    loss = marginal_information(certain, certain.flip(0), many, some, "even").sum()
    assert torch.autograd.grad(loss, certain)[0].isfinite().all()


def test_even_sets_weigh_the_same():
    generator = torch.Generator().manual_seed(1)
    retain, forget = (torch.rand(1, 9, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(2))
    few, many = torch.tensor([2.0], dtype=torch.float64), torch.tensor([7.0], dtype=torch.float64)

    def found(retain_count, forget_count, balance):
        return marginal_information(retain, forget, retain_count, forget_count, balance)

    assert torch.equal(found(few, many, "even"), found(many, few, "even"))
    assert not torch.equal(found(few, many, "data"), found(many, few, "data"))
