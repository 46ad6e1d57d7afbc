"""IAU against the gradients of whole sets."""

from __future__ import annotations

import pytest
import torch
from tests.gradient import FORGET, RETAIN, fresh, gradients_of, weights_of

from kvw.data import prepare
from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.iau import IauSettings
from kvw.training.losses import ascent_loss, descent
from kvw.training.objective import Objective, Term

RATE = 1e-2


def steps_of(settings, retain=RETAIN):
    """What each weight moved by."""
    model, processor = fresh(dtype=torch.float64)
    before = weights_of(model)
    result = unlearn(model, processor, FORGET, retain, "iau", settings)
    after = weights_of(model)
    return {name: after[name] - before[name] for name in result.weights}


def gradients(retain_weight=1.0):
    """(n_f / n) grad -L_f + c grad L_r by name."""
    _, processor = fresh()
    forget, retain = (sum(len(item.answer_ids) for item in prepare(one, processor)) for one in (FORGET, RETAIN))
    mine, _ = gradients_of(lambda trainee: Objective(forget=Term(ascent_loss), retain=None))
    others, _ = gradients_of(lambda trainee: Objective(forget=None, retain=descent(1.0)), side="retain")
    share = forget / (forget + retain)
    return {name: share * mine[name] + retain_weight * others[name] for name in mine}


@pytest.mark.parametrize("retain_weight", [0.0, 2.0])
def test_a_step_is_the_formula(retain_weight):
    moved = steps_of(IauSettings(rate=RATE, retain_weight=retain_weight))
    expected = gradients(retain_weight)
    assert set(moved) == set(expected)
    for name, gradient in expected.items():
        assert float((moved[name] + RATE * gradient).norm()) <= 1e-5 * RATE * float(gradient.norm())


def test_without_retain_weight_no_retain_set_is_needed_and_the_step_is_gradient_ascent():
    moved = steps_of(IauSettings(rate=RATE, retain_weight=0.0), retain=[])
    ascent, _ = gradients_of(lambda trainee: Objective(forget=Term(ascent_loss), retain=None))
    for name, gradient in ascent.items():
        assert float((moved[name] + RATE * gradient).norm()) <= 1e-5 * RATE * float(gradient.norm())
    with pytest.raises(UserError, match="needs both sets"):
        steps_of(IauSettings(), retain=[])


def test_adam_moves_every_weight_by_the_rate():
    moved = steps_of(IauSettings(rate=RATE, optimiser="adam"))
    for name, gradient in gradients().items():
        seen = gradient.abs() > 1e-4
        assert torch.allclose(moved[name][seen], -RATE * gradient[seen].sign(), rtol=1e-3)


@pytest.mark.thorough
def test_batches_do_not_change_the_step():
    one, all_ = (steps_of(IauSettings(rate=RATE, batch_size=size)) for size in (1, 8))
    for name, value in all_.items():
        assert float((one[name] - value).norm()) <= 1e-5 * float(value.norm())
