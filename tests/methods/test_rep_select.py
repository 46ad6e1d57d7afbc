"""RepSelect: the filter against its algebra, the gradient against autograd, and what a step changes."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from tests.batches import logits, text_batch
from tests.families import build_family
from tests.fixtures import built
from tests.methods.test_steering import examples
from torch.testing import assert_close

import kvw
from kvw.data import answer_batch, prepare
from kvw.measuring.given import examples_given
from kvw.methods.registry import get_method
from kvw.methods.rep_select.method import components, filtered, weight_gradients
from kvw.methods.rep_select.settings import RepSelectSettings
from kvw.models.ffn_linears import ffn_linears
from kvw.progress import unheard

pytestmark = pytest.mark.thorough

METHOD = get_method("rep-select")


def gradient(rows=12, columns=18, sizes=(9.0, 5.0, 3.0, 2.0, 1.0)):
    """G with given singular values, and its U and V."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(n, len(sizes), generator=generator, dtype=torch.float64)).Q for n in (rows, columns)
    )
    return left * torch.tensor(sizes, dtype=torch.float64) @ right.T, left, torch.tensor(sizes).double(), right


def values_along(matrix, left, right):
    """What a matrix has along each pair of singular vectors, and that there is nothing else."""
    found = left.T @ matrix @ right
    assert_close(left * found.diagonal() @ right.T, matrix)
    return found.diagonal()


@pytest.mark.parametrize(("sides", "power"), [("both", 2), ("inputs", 1), ("outputs", 1)])
def test_the_kept_components_are_turned_upside_down(sides, power):
    matrix, left, sizes, right = gradient()
    found = values_along(filtered(matrix, matrix, RepSelectSettings(components=3, sides=sides)), left, right)
    smallest = sizes[2]
    expected = torch.cat([sizes[:3] * (smallest / sizes[:3]) ** power, sizes[3:]])
    assert_close(found, expected)
    if sides == "both":
        assert_close(found[:3], smallest**2 / sizes[:3])
    else:
        assert_close(found[:3], smallest.expand(3))


def test_the_other_ways_to_collapse():
    matrix, left, sizes, right = gradient()
    assert filtered(matrix, matrix, RepSelectSettings(collapse="none")) is matrix
    hard = values_along(filtered(matrix, matrix, RepSelectSettings(collapse="hard", components=2)), left, right)
    assert_close(hard, torch.cat([torch.zeros(2).double(), sizes[2:]]), atol=1e-9, rtol=0)
    squared = RepSelectSettings(collapse="quadratic", sides="inputs", components=3)
    found = values_along(filtered(matrix, matrix, squared), left, right)
    assert_close(found[:3], sizes[:3] * (sizes[2] / sizes[:3]).square())
    one = filtered(matrix, matrix, RepSelectSettings(components=1))
    assert_close(one, matrix)  # the only component is its own measure


def test_components_below_the_floor_are_none():
    matrix, *_ = gradient(sizes=(1.0, 0.5, 1e-3))
    assert len(components(matrix, RepSelectSettings())[1]) == 2
    assert len(components(matrix, RepSelectSettings(floor=1e-4))[1]) == 3
    assert len(components(matrix, RepSelectSettings(floor=0.9))[1]) == 1
    zero = torch.zeros(4, 5)
    assert torch.equal(filtered(zero, zero, RepSelectSettings()), zero)


def test_a_sketch_finds_the_same_components_at_every_call():
    matrix, _, sizes, _ = gradient(rows=60, columns=80)
    few = RepSelectSettings(components=4)
    state = torch.random.get_rng_state()
    first, second = components(matrix, few), components(matrix, few)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert_close(first[1], sizes[:4], rtol=1e-6, atol=1e-6)


def test_the_gradient_does_not_depend_on_batches_and_raises_the_loss(llava, llava_processor):
    loaded, (forget,) = examples_given(llava, {"forget": examples(3, 0) + examples(2, 1, image=False)}, llava_processor)
    prepared, linears = loaded.prepare(forget), ffn_linears(llava)
    one, four = (weight_gradients(loaded, prepared, linears, rows, unheard) for rows in (1, 4))
    names = {f"model.language_model.layers.{n}.mlp.{k}_proj.weight" for n in range(4) for k in ("gate", "up", "down")}
    assert set(one) == names
    for name in one:
        assert_close(one[name], four[name], rtol=1e-3, atol=1e-5 * float(one[name].abs().max()))
    weight = llava.get_parameter("model.language_model.layers.1.mlp.up_proj.weight").requires_grad_(True)
    loss, tokens = 0.0, 0
    for item in prepared:
        batch = answer_batch([item], llava_processor)
        count = int((batch["labels"] != -100).sum())
        loss, tokens = loss + llava(**batch, use_cache=False).loss * count, tokens + count
    (expected,) = torch.autograd.grad(-loss / tokens, weight)
    found = one["model.language_model.layers.1.mlp.up_proj.weight"]
    assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def unlearned(model, processor, **settings):
    return kvw.unlearn(model, examples(4, 0), examples(4, 1), settings, method="rep-select", processor=processor)


def loss_of(model, processor):
    batch = answer_batch(prepare(examples(4, 0), processor), processor)
    with torch.no_grad():
        return float(model(**batch, use_cache=False).loss)


def test_a_step_forgets_moves_only_ffns_by_the_size_and_leaves_the_model(llava, llava_processor):
    batch, before = text_batch(2, 10, 3, seed=0), loss_of(llava, llava_processor)
    original, state = logits(llava, batch), {name: value.clone() for name, value in llava.state_dict().items()}
    flags = [one.requires_grad for one in llava.parameters()]
    edit = unlearned(llava, llava_processor, size=0.01, layers=(1, 2))
    assert all(torch.equal(llava.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(logits(llava, batch), original)
    assert [one.requires_grad for one in llava.parameters()] == flags
    names = {f"model.language_model.layers.{n}.mlp.{k}_proj.weight" for n in (1, 2) for k in ("gate", "up", "down")}
    assert set(edit.weights) == names
    moved = sum(float((edit.weights[name] - state[name]).double().square().sum()) for name in names) ** 0.5
    whole = sum(float(state[name].double().square().sum()) for name in names) ** 0.5
    assert_close(moved / whole, 0.01, rtol=1e-3, atol=0)
    with edit.attach(llava):
        assert loss_of(llava, llava_processor) > before
    half = kvw.edits.mix(edit, 0.5)
    with half.attach(llava):
        name = sorted(names)[0]
        assert_close(llava.get_parameter(name), (state[name] + edit.weights[name]) / 2)


@pytest.mark.parametrize(
    "other",
    [
        {"layers": (0, 1)},
        {"collapse": "hard"},
        {"sides": "inputs"},
        {"of": "retain"},
        {"components": 2},
        {"floor": 0.5},
        {"size": 0.5},
        {"rate": 3.0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_every_setting_changes_the_edit(other):
    assert digest(**other) != digest()


@functools.cache
def digest(**settings):
    model, processor = built("llava")
    return unlearned(copy.deepcopy(model), processor, **settings).digest()


def test_what_acts_is_known():
    base = {"rate": None, "collapse": "soft"}
    assert METHOD.idle(base) == set()
    assert METHOD.idle({**base, "rate": 1.0}) == {"size"}
    assert METHOD.idle({**base, "collapse": "none"}) == {"sides", "of", "components", "floor"}
    assert not METHOD.needs_retain(METHOD.read({}))
    assert METHOD.needs_retain(METHOD.read({"of": "retain"}))


def test_experts_are_refused():
    with pytest.raises(kvw.UserError, match="has experts"):
        ffn_linears(build_family("qwen3_moe"))


def test_families_with_fused_and_plain_maps_have_all_of_them():
    shapes = {
        family: sorted(one.weight.name.rpartition(".")[2] for one in ffn_linears(build_family(family), (0, 0)))
        for family in ("gpt2", "opt")
    }
    assert shapes == {"gpt2": ["c_fc", "c_proj"], "opt": ["fc1", "fc2"]}
    assert len(ffn_linears(built("llava")[0])) == 12
