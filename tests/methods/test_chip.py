"""CHIP: outputs, choices, directions and projections by hand, and what a run changes."""

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
from kvw.data import Example, answer_batch
from kvw.data.shared import SHARED
from kvw.measuring.given import examples_given
from kvw.methods.chip.method import directions, driven, mean_outputs, position_weights, projected
from kvw.methods.chip.settings import ChipSettings
from kvw.models.ffn_linears import ffn_linears
from kvw.progress import unheard

pytestmark = pytest.mark.thorough


def drawn(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_positions_weigh_what_their_kind_weighs():
    batch = {
        "input_ids": torch.tensor([[7, 9, 9, 1, 2], [0, 0, 1, 2, 3]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]),
    }
    found = position_weights(batch, torch.tensor([9]), 0.3)
    text = 0.7 / 3
    assert_close(found, torch.tensor([[text, 0.15, 0.15, text, text], [0, 0, 1 / 3, 1 / 3, 1 / 3]]))


def test_outputs_are_means_over_positions_whatever_the_batch(llava, llava_processor):
    loaded, (some,) = examples_given(llava, {"some": examples(3, 0) + examples(2, 1, image=False)}, llava_processor)
    prepared, linears = loaded.prepare(some), ffn_linears(llava, (2, 2))
    found = [mean_outputs(loaded, prepared, linears, ChipSettings(batch_size=rows), unheard) for rows in (1, 4)]
    for name in found[0]:
        assert_close(found[0][name], found[1][name], rtol=1e-3, atol=1e-4)
    seen = {}
    down = next(one.module for one in linears if one.weight.name.endswith("up_proj"))
    handle = down.register_forward_hook(lambda _, __, output: seen.update(up=output.detach()[0]))
    batch = answer_batch([prepared[0]], llava_processor)
    with torch.no_grad():
        llava(**batch, use_cache=False)
    handle.remove()
    image = batch["input_ids"][0] == llava.config.image_token_id
    expected = 0.3 * seen["up"][image].mean(0) + 0.7 * seen["up"][~image].mean(0)
    assert_close(found[0]["model.language_model.layers.2.mlp.up_proj.weight"][0], expected, rtol=1e-3, atol=1e-4)
    assert not down._forward_hooks


def test_the_outputs_that_the_forget_set_drives_more_are_chosen():
    forget, retain = torch.tensor([[1.0, -9.0, 2.0, 5.0]]), torch.tensor([[1.0, 1.0, 3.0, 1.0]])
    assert driven(forget, retain, 0.5).tolist() == [1, 3]
    assert driven(forget, retain, 0.01).tolist() == [1]


def test_directions_span_what_sets_groups_apart_from_siblings():
    siblings, forget = drawn(8, 10, 0), drawn(6, 10, 1)
    basis = directions(forget, ["a", "a", "b", "b", "c", "c"], siblings, 1.0)
    assert_close(basis.T @ basis, torch.eye(3).double())
    for rows in ([0, 1], [2, 3], [4, 5]):
        difference = forget[rows].mean(0) - siblings.mean(0)
        assert_close(basis @ (basis.T @ difference), difference)
    assert directions(forget, [0] * 6, siblings, 1.0).shape == (10, 1)
    assert directions(forget, ["a", "a", "b", "b", "c", "c"], siblings, 0.1).shape == (10, 1)
    with pytest.raises(kvw.UserError, match="Nothing sets"):
        directions(siblings, [0] * 8, siblings, 1.0)


@pytest.mark.parametrize("name", ["llava", "gpt2"])
def test_the_chosen_outputs_lose_the_directions_and_nothing_else_changes(name):
    model = copy.deepcopy(build_family(name))
    one = ffn_linears(model, (1, 1))[0]
    width = one.module.nx if name == "gpt2" else one.module.in_features
    given = drawn(5, width, 3).float()
    bias = one.module(torch.zeros(1, width)).detach()
    before = (one.module(given) - bias).detach()
    chosen = torch.tensor([0, 2, 5, 7])
    basis = torch.linalg.qr(drawn(4, 2, 4)).Q
    original = one.weight.read().clone()
    changed = projected(one, chosen, basis)
    assert torch.equal(one.weight.read(), original)
    one.weight.write(changed)
    after = (one.module(given) - bias).detach()
    one.weight.write(original)
    others = [place for place in range(before.shape[1]) if place not in chosen]
    assert torch.equal(after[:, others], before[:, others])
    assert float((after[:, chosen] @ basis.float()).abs().max()) < 1e-5
    rest = torch.eye(4) - (basis @ basis.T).float()
    assert_close(after[:, chosen], before[:, chosen] @ rest, rtol=1e-4, atol=1e-5)


def unlearned(model, processor, **settings):
    forget = [
        Example(one.question, one.answer, one.images, one.identifier, {"subject": str(number // 2)})
        for number, one in enumerate(examples(4, 0))
    ]
    return kvw.unlearn(model, forget, examples(6, 1), settings, method="chip", processor=processor)


def test_a_run_changes_the_last_ffns_and_leaves_the_model(llava, llava_processor):
    batch = text_batch(2, 10, 3, seed=0)
    original, state = logits(llava, batch), {name: value.clone() for name, value in llava.state_dict().items()}
    edit = unlearned(llava, llava_processor)
    assert torch.equal(logits(llava, batch), original)
    assert set(edit.weights) == {f"model.language_model.layers.3.mlp.{k}_proj.weight" for k in ("gate", "up", "down")}
    for name, value in edit.weights.items():
        rows = (value != state[name]).any(1)
        assert int(rows.sum()) == max(1, int(0.1 * len(value))), name
    with edit.attach(llava):
        assert not torch.allclose(logits(llava, batch), original, atol=1e-4)


@pytest.mark.parametrize(
    "other",
    [{"layers": (1, 2)}, {"share": 0.5}, {"energy": 0.05}, {"image_weight": 0.9}, {"by": "subject"}],
    ids=lambda other: next(iter(other)),
)
def test_every_setting_changes_the_edit(other):
    assert digest(**other) != digest()


@functools.cache
def digest(**settings):
    model, processor = built("llava")
    return unlearned(copy.deepcopy(model), processor, **settings).digest()


def test_the_layers_are_as_many_as_the_authors():
    assert ChipSettings().chosen_layers(28) == (22, 27)
    assert ChipSettings().chosen_layers(30) == (24, 29)
    assert ChipSettings().chosen_layers(2) == (1, 1)


def test_the_users_own_retain_examples_are_the_siblings(llava, llava_processor):
    def run(retain):
        return kvw.unlearn(llava, examples(3, 0), retain, {}, method="chip", processor=llava_processor).digest()

    own = examples(6, 1)
    marked = [
        Example(one.question, one.answer, one.images, one.identifier, {"source": next(iter(SHARED))}) for one in own[3:]
    ]
    assert run([*own[:3], *marked]) != run(own)
