"""The training loop: what changes the result and what must not."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from tests.gradient import (
    FORGET,
    LORA,
    RETAIN,
    TEXT,
    TRAINED,
    changed,
    forget_by,
    fresh,
    sets,
    training,
    weights_of,
)
from tests.sampling import one_in

from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.grad_diff import GradDiffSettings
from kvw.training.loop import train
from kvw.training.objective import Objective, Term
from kvw.training.planting import finetune
from kvw.training.settings import LoraSettings
from kvw.training.trainee import in_training

pytestmark = pytest.mark.thorough


@functools.cache
def _plain(lora):
    return forget_by("ga", lora=lora)[0]


def largest_difference(left, right):
    right = right.state_dict()
    return max(float((value - right[name]).abs().max()) for name, value in left.state_dict().items())


@pytest.mark.parametrize("method", one_in(2, TRAINED))
def test_four_batches_of_one_are_one_batch_of_four(method):
    one, first = forget_by(method, dtype=torch.float64, batch_size=1, accumulation=4)
    four, second = forget_by(method, dtype=torch.float64, batch_size=4, accumulation=1)
    assert largest_difference(one, four) < 1e-6
    assert len(first.history) == len(second.history) == 1
    for left, right in zip(first.history, second.history, strict=True):
        assert left.losses == pytest.approx(right.losses, rel=1e-6, abs=1e-9)
        assert left.gradient_norms == pytest.approx(right.gradient_norms, rel=1e-6)


def test_a_step_may_hold_examples_with_and_without_images():
    together, processor = fresh(dtype=torch.float64)
    apart, _ = fresh(dtype=torch.float64)
    unlearn(together, processor, FORGET + TEXT, RETAIN + TEXT, "grad-diff", None, training(batch_size=6))
    unlearn(apart, processor, FORGET + TEXT, RETAIN + TEXT, "grad-diff", None, training(batch_size=1, accumulation=6))
    assert largest_difference(together, apart) < 1e-6


def test_the_seed_decides_over_order_and_dropout_and_the_callers_numbers_stay():
    lora = LoraSettings(rank=2, alpha=4, dropout=0.5)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one, first = forget_by("ga", lora=lora, seed=1)
    assert torch.equal(torch.rand(3), expected)
    again, second = forget_by("ga", lora=lora, seed=1)
    other, third = forget_by("ga", lora=lora, seed=2)
    assert largest_difference(one, again) == 0
    assert first.history == second.history
    assert largest_difference(one, other) > 0
    assert [step.forget for step in first.history] != [step.forget for step in third.history]


def test_an_epoch_sees_every_forget_example_once_and_the_record_says_which():
    _, result = forget_by("grad-diff", epochs=2)
    assert [len(step.forget) for step in result.history] == [2, 2, 2, 2]
    for epoch in (result.history[:2], result.history[2:]):
        for side in ("forget", "retain"):
            assert sorted(index for step in epoch for index in getattr(step, side)) == [0, 1, 2, 3]


def test_progress_is_told_after_every_step():
    model, processor = fresh()
    seen = []
    unlearn(model, processor, FORGET, RETAIN, "ga", None, training(), progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


def test_clipping_bounds_the_gradient_and_none_does_not():
    _, clipped = forget_by("ga", clip=1e-3)
    _, plain = forget_by("ga", clip=None)
    assert clipped.history[0].gradient_norms == plain.history[0].gradient_norms
    assert clipped.history[0].gradient_norms[0] > 1
    # The second step starts from where the first has gone, and AdamW is blind to the scale of a single gradient but
    # not to its epsilon.
    assert clipped.history[1].gradient_norms != plain.history[1].gradient_norms


def test_gradient_checkpointing_changes_nothing_and_is_off_afterwards():
    for method in ("grad-diff", "rmu"):
        for lora in (None, LORA):
            plain, _ = forget_by(method, lora=lora)
            model, _ = forget_by(method, lora=lora, gradient_checkpointing=True)
            assert largest_difference(plain, model) == 0
            assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_gradient_checkpointing_computes_activations_again():
    model, processor = fresh()
    calls = []
    model.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    unlearn(model, processor, FORGET[:1], [], "ga", None, training())
    once = len(calls)
    unlearn(model, processor, FORGET[:1], [], "ga", None, training(gradient_checkpointing=True))
    assert (once, len(calls) - once) == (1, 2)


def test_bfloat16_computes_in_bfloat16_and_keeps_small_updates():
    """An update of 1e-5 is lost when it is added to bfloat16 weights one by one, but not in float32."""
    model, processor = fresh(dtype=torch.bfloat16)
    with pytest.raises(UserError, match="round to nothing"):
        unlearn(model, processor, FORGET, RETAIN, "ga", None, training())
    settings = training(precision="bf16", learning_rate=2e-4, epochs=10)
    seen = []
    model.model.language_model.layers[0].mlp.down_proj.register_forward_hook(
        lambda module, _, output: seen.append((module.weight.dtype, output.dtype))
    )
    before = weights_of(model)
    unlearn(model, processor, FORGET, [], "ga", None, settings)
    assert set(seen) == {(torch.float32, torch.bfloat16)}
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    name = "model.language_model.layers.0.mlp.down_proj.weight"
    assert changed(model, before) >= {name}
    assert float((model.state_dict()[name].float() - before[name].float()).abs().mean()) > 1e-3


def test_adapters_on_bfloat16_weights_are_float32():
    model, processor = fresh(dtype=torch.bfloat16)
    result = unlearn(model, processor, FORGET, [], "ga", None, training(lora=LORA))
    assert {value.dtype for value in result.adapter.values()} == {torch.float32}
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}


def test_the_retain_ceiling_stops_before_the_step_that_would_go_on():
    _, free = forget_by("ga", epochs=4, learning_rate=5e-3, retain_ceiling=1e6)
    losses = [step.losses["watched retain"] for step in free.history]
    assert losses[-1] > losses[0]
    ceiling = (losses[0] + max(losses)) / 2
    expected = next(number for number, loss in enumerate(losses) if loss >= ceiling)
    _, stopped = forget_by("ga", epochs=4, learning_rate=5e-3, retain_ceiling=ceiling)
    assert stopped.stopped.startswith(f"step {expected}: the retain loss")
    assert stopped.history == free.history[:expected]


def test_the_watched_loss_is_that_of_the_retain_examples_and_changes_nothing():
    plain, _ = forget_by("grad-diff", GradDiffSettings(retain_weight=1.0))
    model, result = forget_by("grad-diff", GradDiffSettings(retain_weight=1.0), retain_ceiling=1e6)
    for step in result.history:
        assert step.losses["watched retain"] == pytest.approx(step.losses["retain"], rel=1e-5)
    assert largest_difference(plain, model) == 0


def test_the_forget_floor_stops():
    _, free = forget_by("ga", epochs=4)
    floor = free.history[3].losses["forget"]
    _, result = forget_by("ga", epochs=4, forget_floor=floor)
    assert result.stopped.startswith("step 3: the forget loss")
    assert result.history == free.history[:3]


@pytest.mark.parametrize("lora", [None, LORA])
def test_an_exception_in_the_loss_propagates(lora):
    model, processor = fresh()
    before = weights_of(model)

    def broken(model, rows):
        raise RuntimeError("lost")

    with (
        pytest.raises(RuntimeError, match="lost"),
        in_training(model, processor, training(lora=lora), sets(processor)) as trainee,
    ):
        train(trainee, Objective(Term(broken), None), sets(processor), about={})
    assert changed(model, before) == set()
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not hasattr(model, "peft_config")


def test_a_loss_that_is_not_finite_names_the_examples():
    model, processor = fresh()
    with torch.no_grad():
        model.lm_head.weight[:] = math.inf
    with pytest.raises(UserError, match=r"The loss is not finite(.|\n)*forget:"):
        unlearn(model, processor, FORGET, [], "ga", None, training())


def test_a_gradient_that_is_not_finite_is_an_error():
    model, processor = fresh()
    # The root of zero is zero, but its slope is not a number.
    objective = Objective(Term(lambda model, rows: (model.lm_head.weight * 0).sqrt().sum()), None)
    with (
        pytest.raises(UserError, match="gradient is not finite"),
        in_training(model, processor, training(), sets(processor)) as trainee,
    ):
        train(trainee, objective, sets(processor), about={})


def test_a_set_that_is_needed_must_not_be_empty():
    model, processor = fresh()
    with pytest.raises(UserError, match=r"The retain set is empty(.|\n)*the method needs it"):
        unlearn(model, processor, FORGET, [], "grad-diff", None, training())
    with pytest.raises(UserError, match=r"The retain set is empty(.|\n)*retain ceiling"):
        unlearn(model, processor, FORGET, [], "ga", None, training(retain_ceiling=9.0))
    with pytest.raises(UserError, match="retain set is empty"):
        finetune(model, processor, [], training())
    objective = Objective(Term(lambda model, rows: None, weight=0.0), None)
    with (
        pytest.raises(UserError, match="nothing to train on"),
        in_training(model, processor, training(), sets(processor)) as trainee,
    ):
        train(trainee, objective, sets(processor), about={})


def test_a_model_with_adapters_is_refused():
    model, processor = fresh()
    model.peft_config = {}
    with pytest.raises(UserError, match="carries a PEFT adapter"):
        unlearn(model, processor, FORGET, RETAIN, "ga", None, training())


def test_quantised_weights_cannot_be_trained_in_full():
    model, processor = fresh()
    linear = model.model.language_model.layers[0].mlp.down_proj
    linear.weight = torch.nn.Parameter(linear.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(UserError, match="quantised weights"):
        unlearn(model, processor, FORGET, RETAIN, "ga", None, training())


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 2e-3},
        {"epochs": 2},
        {"batch_size": 1},
        {"accumulation": 2},
        {"schedule": "linear"},
        {"schedule": "cosine"},
        {"warm_up": 1.0},
        {"weight_decay": 0.5},
        {"clip": 1e-6},
        {"precision": "bf16"},
        {"parts": ("vision",)},
        {"lora": LORA},
        {"lora": LoraSettings(rank=2, alpha=6, dropout=0.0)},
        {"lora": LoraSettings(rank=3, alpha=7, dropout=0.0)},
        {"lora": LoraSettings(rank=3, alpha=6, dropout=0.3)},
        {"seed": 5},
        {"forget_floor": 1e9},
    ],
    ids=str,
)
def test_every_option_changes_the_result(changes):
    plain = _plain(LORA if changes.get("lora", LORA) != LORA else None)
    model, _ = forget_by("ga", **changes)
    assert largest_difference(plain, model) > 0
