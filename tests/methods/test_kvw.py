"""Identities and options of KVW."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tests.batches import joined, logits, padded, text_batch, weights
from tests.fixtures import TWO

import kvw
from kvw.edits import RoundedGateEdit
from kvw.measuring.engine import measure
from kvw.measuring.statistics import accessor
from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.kvw.weaken import Step
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

FORGET = [text_batch(1, 9 + index % 4, 3, seed=index) for index in range(5)]
RETAIN = [text_batch(2, 12, 4, seed=100 + index) for index in range(3)]


@pytest.fixture(params=TWO, scope="session")
def family(request):
    return request.param


def gates(model, **settings):
    edit = kvw.weaken(
        model,
        settings.pop("forget", FORGET),
        settings.pop("retain", RETAIN),
        kvw.KvwSettings(**{"seed": None, **settings}),
    )
    return edit.log_gates


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], **tolerance)


def differ(first, second):
    return first.keys() != second.keys() or any(not torch.allclose(first[key], second[key]) for key in first)


def test_retain_equal_to_forget_leaves_every_weight_bit_identical(model):
    before = weights(model)
    batch = text_batch(3, 11, 4, seed=1)
    kvw.weaken(model, [batch], [batch], kvw.KvwSettings(seed=None, gamma=5.0)).fold(model)
    assert_same(weights(model), before, rtol=0, atol=0)


def test_measuring_leaves_the_model_as_it_was(model):
    before, states = weights(model), logits(model, RETAIN[0])
    model.train()
    kvw.weaken(model, FORGET, RETAIN, kvw.KvwSettings(seed=None, gamma=0.5))
    assert model.training
    model.eval()
    assert_same(weights(model), before, rtol=0, atol=0)
    assert torch.equal(logits(model, RETAIN[0]), states)


def test_layers_outside_the_range_are_bit_identical(model):
    before = weights(model)
    kvw.weaken(model, FORGET, RETAIN, kvw.KvwSettings(seed=None, gamma=1.0, layers=(1, 2))).fold(model)
    after = weights(model)
    for key in before:
        inside = 1 <= key.layer <= 2
        assert torch.equal(before[key], after[key]) != inside, key


@pytest.mark.parametrize(("left", "right"), [(0, 5), (7, 0), (3, 2)])
def test_padding_side_and_amount_change_nothing(model, left, right):
    plain = gates(model, gamma=0.1)
    moved = gates(
        model,
        forget=[padded(batch, left, right) for batch in FORGET],
        retain=[padded(batch, left, right) for batch in RETAIN],
        gamma=0.1,
    )
    assert_same(plain, moved, rtol=1e-4, atol=1e-6)


def test_a_batch_of_many_measures_what_single_examples_measure(model):
    singles = [text_batch(1, 6 + index, 2 + index % 3, seed=index) for index in range(7)]
    together, apart = measure(model, [joined(singles)]), measure(model, singles)
    assert together.counts == apart.counts
    for key in apart.sums:
        torch.testing.assert_close(together.coefficients(key), apart.coefficients(key), rtol=1e-5, atol=1e-8)


def test_coefficients_are_means_at_answer_predicting_positions(model):
    """Against plain hooks in float64 on one value matrix after the other."""
    exact = copy.deepcopy(model).double()
    batch = padded(text_batch(3, 10, 3, seed=4), 2, 3)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    statistics = measure(model, [batch], layers=(0, 3))
    for matrix in find_value_matrices(exact)[:4]:
        seen = []
        handle = matrix.module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            exact(**inputs)
        handle.remove()
        predicting = batch["labels"][:, 1:] != -100
        reference = seen[0][:, :-1][predicting].abs().mean(0)
        torch.testing.assert_close(statistics.coefficients(matrix.key), reference, rtol=1e-4, atol=1e-6)
        assert statistics.counts[matrix.key] == 9


def test_scaling_up_projection_rows_equals_scaling_value_columns(model):
    edit = kvw.weaken(model, FORGET, RETAIN, kvw.KvwSettings(seed=None, gamma=1.0))
    other = copy.deepcopy(model)
    edit.fold(model)
    for key, matrix in edit.value_matrices(other).items():
        up = other.get_submodule(matrix.name.replace("down_proj", "up_proj"))
        with torch.no_grad():
            up.weight.mul_(edit.log_gates[key].exp()[:, None])
            if up.bias is not None:
                up.bias.mul_(edit.log_gates[key].exp())
    torch.testing.assert_close(logits(model, RETAIN[0]), logits(other, RETAIN[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
def test_a_gate_below_bfloat16_resolution_weakens_by_the_exact_amount(llava):
    """gamma A = 0.0015 for 100 steps: exp(-0.15), where rounding at every step would do nothing at all."""
    llava.to(torch.bfloat16)
    before = weights(llava)
    accessors: dict[MatrixKey, torch.Tensor] = {}

    def watch(step: Step) -> None:
        accessors.update({key: -gate.double().log() for key, gate in step.gates.items()})

    kvw.weaken(llava, FORGET[:1], RETAIN, kvw.KvwSettings(seed=None, gamma=1.0, layers=(1, 1)), on_step=watch)
    vector = int(accessors[MatrixKey(1)].argmax())
    gamma = 0.0015 / float(accessors[MatrixKey(1)][vector])
    repeated = FORGET[:1] * 100

    parity = copy.deepcopy(llava)
    kvw.weaken(parity, repeated, RETAIN, kvw.KvwSettings(seed=None, gamma=gamma, layers=(1, 1), parity=True)).fold(
        parity
    )
    assert torch.equal(weights(parity)[MatrixKey(1)], before[MatrixKey(1)])

    kvw.weaken(llava, repeated, RETAIN, kvw.KvwSettings(seed=None, gamma=gamma, layers=(1, 1))).fold(llava)
    exact = (before[MatrixKey(1)].double()[:, vector] * math.exp(-0.15)).to(torch.bfloat16)
    torch.testing.assert_close(weights(llava)[MatrixKey(1)][:, vector], exact, rtol=2**-8, atol=0)
    assert not torch.equal(exact, before[MatrixKey(1)][:, vector])


def test_one_shot_does_not_depend_on_order_or_batching(model):
    first = gates(model, gamma=0.1, schedule="one-shot")
    second = gates(model, forget=FORGET[::-1], retain=RETAIN[::-1], gamma=0.1, schedule="one-shot")
    assert_same(first, second, rtol=1e-6, atol=1e-9)


def test_one_shot_is_the_closed_form(model):
    forget, retain = measure(model, FORGET), measure(model, RETAIN)
    found = gates(model, gamma=0.3, schedule="one-shot", update_every=2)
    for key, value in found.items():
        ratio = forget.coefficients(key).add(1e-12).log() - retain.coefficients(key).add(1e-12).log()
        torch.testing.assert_close(value, (-0.3 * 3 * ratio.clamp(min=0)).float())


def test_progressive_equals_one_shot_steps_where_nothing_lies_below(model):
    """Weakening a layer never changes its own coefficients, so in one layer the steps just add up."""
    progressive = gates(model, gamma=0.2, layers=(2, 2))
    key = MatrixKey(2)
    retain = measure(model, RETAIN, layers=(2, 2)).coefficients(key)
    steps = [accessor(measure(model, [batch], layers=(2, 2)).coefficients(key), retain) for batch in FORGET]
    torch.testing.assert_close(progressive[key], (-0.2 * sum(steps)).float(), rtol=1e-5, atol=1e-7)


def test_progressive_measures_the_model_as_weakened_so_far(model):
    settings = {"gamma": 3.0, "layers": (0, 3)}
    retain = measure(model, RETAIN, layers=(0, 3))
    together = gates(model, forget=FORGET[:2], retain=retain, **settings)
    first = kvw.weaken(model, FORGET[:1], retain, kvw.KvwSettings(seed=None, **settings))
    unchanged = kvw.weaken(model, FORGET[1:2], retain, kvw.KvwSettings(seed=None, **settings))
    first.fold(model)
    second = kvw.weaken(model, FORGET[1:2], retain, kvw.KvwSettings(seed=None, **settings))
    assert differ(second.log_gates, unchanged.log_gates)
    both = {key: value + second.log_gates[key] for key, value in first.log_gates.items()}
    assert_same(together, both, rtol=1e-4, atol=1e-5)


def test_doubled_forget_coefficients_give_log_two():
    retain = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(accessor(2 * retain, retain), torch.full((3,), math.log(2), dtype=torch.float64))
    assert torch.equal(accessor(retain / 2, retain), torch.zeros(3, dtype=torch.float64))


def test_a_dead_vector_is_bounded_by_the_epsilon():
    found = accessor(torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([12 * math.log(10), 0.0], dtype=torch.float64))


@pytest.mark.parametrize(("exponent", "expected"), [(0.0019, 1.0), (0.0021, 0.99609375)])
def test_parity_has_the_dead_zone_of_bfloat16(llava, exponent, expected):
    llava.to(torch.bfloat16)
    before = weights(llava)[MatrixKey(1)]
    steps = torch.full((1, before.shape[1]), math.exp(-exponent)).to(torch.bfloat16)
    RoundedGateEdit({MatrixKey(1): steps}).fold(llava)
    assert torch.equal(weights(llava)[MatrixKey(1)], before * expected)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.2},
        {"layers": (0, 2)},
        {"update_every": 2},
        {"epochs": 2},
        {"seed": 3},
        {"retain_contrast": False},
        {"positions": "all"},
        {"schedule": "one-shot"},
    ],
    ids=str,
)
def test_every_setting_changes_the_result(llava, change):
    base = {"gamma": 2.0, "layers": (0, 3)}
    assert differ(gates(llava, **base), gates(llava, **{**base, **change}))


@pytest.mark.parametrize(("batches", "update_every", "epochs"), [(5, 2, 2), (5, 5, 1), (4, 2, 3), (1, 3, 2)])
def test_both_schedules_count_the_same_steps(llava, batches, update_every, epochs):
    """A step never spans two epochs, so five batches two by two are three steps in every epoch."""
    settings = {"update_every": update_every, "epochs": epochs}
    steps: list[Step] = []
    progressive = kvw.weaken(
        llava, FORGET[:batches], RETAIN, kvw.KvwSettings(seed=None, **settings), on_step=steps.append
    )
    one_shot = kvw.weaken(llava, FORGET[:batches], RETAIN, kvw.KvwSettings(seed=None, schedule="one-shot", **settings))
    expected = math.ceil(batches / update_every) * epochs
    assert len(steps) == progressive.metadata.settings["steps"] == one_shot.metadata.settings["steps"] == expected
    assert one_shot.metadata.settings["update_every"] == update_every


def test_a_seed_repeats_itself(llava):
    settings = {"gamma": 2.0, "layers": (0, 3), "epochs": 2}
    assert_same(gates(llava, seed=5, **settings), gates(llava, seed=5, **settings), rtol=0, atol=0)


def test_no_retain_set_is_needed_without_the_contrast(llava):
    edit = kvw.weaken(llava, FORGET, None, kvw.KvwSettings(seed=None, retain_contrast=False))
    assert sum(layer.weakened for layer in edit.describe()) > 0


def test_a_data_loader_is_enough(llava):
    loader = torch.utils.data.DataLoader(FORGET, batch_size=None)
    assert_same(gates(llava, forget=loader, gamma=0.1, epochs=2), gates(llava, gamma=0.1, epochs=2), rtol=0, atol=0)


def test_a_batch_without_an_answer_changes_nothing(llava):
    silent = {**FORGET[0], "labels": torch.full_like(FORGET[0]["labels"], -100)}
    assert_same(gates(llava, forget=[silent, *FORGET], gamma=0.1), gates(llava, gamma=0.1), rtol=0, atol=0)


def test_statistics_take_the_place_of_the_retain_set(llava):
    statistics = measure(llava, RETAIN, layers=(0, 3))
    assert_same(gates(llava, retain=statistics), gates(llava), rtol=0, atol=0)


def test_an_exception_in_the_model_comes_through_and_leaves_no_hook(llava):
    broken = {**FORGET[0], "input_ids": torch.full_like(FORGET[0]["input_ids"], 10**6)}
    with pytest.raises(IndexError):
        kvw.weaken(llava, [broken], RETAIN, kvw.KvwSettings(seed=None))
    assert not any(module._forward_pre_hooks for module in llava.modules())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gamma": 0.0}, "gamma must be a number above 0"),
        ({"gamma": float("nan")}, "gamma must be a number above 0"),
        ({"gamma": float("inf")}, "gamma must be a number above 0"),
        ({"update_every": 0}, "update_every must be a whole number"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"layers": (2, 9)}, "does not fit this model"),
        ({"layers": (3, 1)}, "does not fit this model"),
        ({"parity": True, "schedule": "one-shot"}, "no one-shot form"),
        ({"schedule": "one_shot"}, "schedule must be one of"),
        ({"positions": "answers"}, "positions must be one of"),
        ({"retain": None}, "retain set is missing"),
        ({"retain": []}, "nothing to average"),
        ({"forget": []}, "nothing would be weakened"),
        ({"forget": [{"input_ids": torch.ones(1, 3, dtype=torch.long)}]}, "no 'labels'"),
        ({"forget": iter(FORGET), "epochs": 2}, "gone through again"),
        ({"forget": iter(FORGET), "seed": 1}, "as a sequence"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_unusable_input_is_refused_with_a_message(llava, settings, words):
    arguments = {"forget": FORGET, "retain": RETAIN, **settings}
    with pytest.raises(kvw.UserError, match=words):
        kvw.weaken(
            llava, arguments.pop("forget"), arguments.pop("retain"), kvw.KvwSettings(**{"seed": None, **arguments})
        )


def test_statistics_of_other_layers_are_refused(llava):
    with pytest.raises(kvw.UserError, match="do not cover the layers"):
        kvw.weaken(llava, FORGET, measure(llava, RETAIN, layers=(0, 0)), kvw.KvwSettings(seed=None, layers=(0, 1)))


def test_weights_that_hold_nan_are_noticed(llava):
    with torch.no_grad():
        find_value_matrices(llava)[0].module.weight[0, 0] = float("nan")
    statistics = measure(llava, RETAIN, layers=(0, 0))
    assert statistics.counts[MatrixKey(0)] > 0
    with pytest.raises(kvw.UserError, match="not finite"):
        kvw.weaken(llava, FORGET, RETAIN, kvw.KvwSettings(seed=None, layers=(0, 2)))


def test_settings_are_those_of_the_paper_code():
    assert KvwSettings() == KvwSettings(gamma=0.02, update_every=1, epochs=1, positions="answer")
    assert KvwSettings().schedule == "progressive"


def test_by_default_the_first_layer_and_the_last_two_are_left_alone(llava):
    last = max(matrix.key.layer for matrix in find_value_matrices(llava))
    edit = kvw.weaken(llava, FORGET, RETAIN, KvwSettings(schedule="one-shot"))
    assert {key.layer for key in edit.log_gates} == set(range(1, last - 1))
    assert edit.log_gates
