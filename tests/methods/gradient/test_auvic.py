"""AUVIC: what the tower is trained against, what the generator may change, and who is kept."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from tests.gradient import FORGET, RETAIN, TEXT, changed, fresh, gradients_of, sets, training, weights_of
from tests.tiny_models import noise_png
from torch.nn.functional import softplus

from kvw.data import Example, prepare
from kvw.data.images import load_image
from kvw.errors import UserError
from kvw.methods.describing import settings_of
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.auvic import (
    METHOD,
    AuvicSettings,
    Concepts,
    auvic,
    drawn_anchors,
    first_token,
    largest_logits,
)
from kvw.methods.gradient.disguises import group_picture, in_disguise
from kvw.methods.gradient.pixel_generator import Adversary
from kvw.methods.steering.perturbation import PIXELS, PixelRange
from kvw.training.answers import answers
from kvw.training.settings import LoraSettings
from kvw.training.trainee import in_training

NAMES = ("Basil", "Ada Kent", "florist")
PLAIN = {"epsilon": 0.0, "anchor_weight": 0.0, "disguises": 0}
TOWER = {"parts": ("vision",), "lora": LoraSettings(rank=3, alpha=3, dropout=0.0)}


def built(**changes):
    settings = AuvicSettings(**{"candidates": NAMES, "hidden": 8, "disguises": 0, **changes})
    return lambda trainee: auvic(trainee, settings)


def adversary(model, processor, items, epsilon=8 / 255, rate=1e-3):
    return Adversary(model, processor, items, hidden=8, epsilon=epsilon, rate=rate, seed=0)


@pytest.mark.thorough
@pytest.mark.parametrize("how", [TOWER, {}], ids=["tower", "language"])
def test_without_generator_and_anchors_it_is_the_plain_loss_on_the_largest_logit(how):
    found, value = gradients_of(built(concept="name", **PLAIN), **how)
    model, processor = fresh(dtype=torch.float64)
    with in_training(model, processor, training(**how), sets(processor)) as trainee:
        total = 0.0
        for index, item in enumerate(trainee.forget):
            said = answers(model, trainee.rows(trainee.forget, [index]).batch)
            token = processor.tokenizer(f" {item.example.answer}", add_special_tokens=False)["input_ids"][0]
            total = total + softplus(said.logits[:, token].max()) / 4
        total.backward()
        assert total.item() == pytest.approx(value)
        for name, gradient in found.items():
            assert torch.allclose(trainee.parameters[name].grad, gradient, atol=1e-12)


@pytest.mark.thorough
def test_by_default_nothing_but_four_kinds_of_maps_of_the_tower_moves():
    model, processor = fresh()
    before = weights_of(model)
    how = METHOD.read({"epochs": 1, "learning_rate": 0.01}).training
    unlearn(model, processor, FORGET, RETAIN, METHOD, AuvicSettings(candidates=NAMES, hidden=8), how)
    moved = changed(model, before)
    assert moved
    assert all("vision" in name for name in moved)
    assert {name.split(".")[-2] for name in moved} == {"q_proj", "v_proj", "fc1", "fc2"}


def test_training_is_the_papers_unless_told_otherwise():
    ours = METHOD.read({})
    assert (ours.training.parts, ours.training.epochs, ours.training.learning_rate) == (("vision",), 5, 1e-4)
    assert (ours.training.lora.rank, ours.training.lora.alpha) == (32, 32)
    assert METHOD.read({"lora.rank": 4}).training.lora == LoraSettings(rank=4, alpha=32)
    assert METHOD.read({"lora": {}}).training.lora.rank == 32
    assert METHOD.read({"lora": None, "parts": ["projector"]}).training.lora is None
    listed = {one.name: one.default for one in settings_of("auvic")}
    assert (listed["parts"], listed["epochs"]) == ("vision", "5")
    assert (listed["lora.rank"], listed["lora.alpha"], "lora" in listed) == ("32", "32.0", False)
    assert {one.name: one.default for one in settings_of("npo")}["parts"] == "language"
    model, processor = fresh()
    result = unlearn(model, processor, FORGET, RETAIN, METHOD, AuvicSettings(**PLAIN))
    assert result.settings["training"]["parts"] == ("vision",)
    assert len(result.history) == 5


def test_changed_pictures_are_8_bit_values_within_epsilon():
    model, processor = fresh()
    items = sets(processor)["forget"]
    made = adversary(model, processor, items)
    with torch.no_grad():
        made.generator.maps[-1].weight.mul_(1e4)  # as far as tanh lets it
    with in_training(model, processor, training(), sets(processor)) as trainee:
        rows = trainee.rows(items, range(4))
        found = made.pixels(rows)
    for index, item in enumerate(items):
        pixels = PixelRange.measure(item, processor)
        clean, now = (pixels.brightness(one[index : index + 1]) for one in (rows.batch[PIXELS], found.detach()))
        apart = (now - clean).abs()
        assert 4 / 255 < float(apart.max()) <= 8 / 255 + 1e-6
        assert torch.allclose(255 * now, (255 * now).round(), atol=1e-3)
    assert found.requires_grad


def test_towards_no_temperature_the_nearest_are_drawn():
    cosines = torch.tensor([[0.9, 0.1, 0.8, 0.3], [0.0, 0.5, 0.2, 0.4]])
    noise = torch.tensor([[0.0, 9.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])
    cold = drawn_anchors(cosines, 2, 1e-3, noise)
    assert (cold > 0).tolist() == [[True, False, True, False], [False, True, False, True]]
    assert cold.sum(1).tolist() == pytest.approx([1, 1])
    warm = drawn_anchors(cosines, 2, 10.0, noise)
    assert warm.argmax(1).tolist() == [1, 0]
    assert int((drawn_anchors(cosines, 9, 1.0, noise) > 0).sum()) == 8


@pytest.mark.thorough
def test_a_picture_that_is_not_changed_is_consistent_with_itself():
    """Below half a step of 8 bits nothing may change."""
    wanted = {"anchor_weight": 0.0, "epsilon": 1e-4}
    with_it, one = gradients_of(built(consistency_weight=5.0, **wanted), **TOWER)
    without, other = gradients_of(built(consistency_weight=0.0, **wanted), **TOWER)
    assert one == pytest.approx(other, abs=1e-6)
    assert all(torch.allclose(with_it[name], without[name], atol=1e-5) for name in without)


@pytest.mark.thorough
def test_the_generator_makes_the_concept_more_visible():
    model, processor = fresh()
    with in_training(model, processor, training(**TOWER), sets(processor)) as trainee:
        objective = built(generator_rate=1e-3, inner_steps=20, anchor_weight=0.0, consistency_weight=0.0)(trainee)
        rows = trainee.rows(objective.examples, range(4))
        before = weights_of(model)
        first = objective.forget.loss(model, rows).item()
        objective.before_step({"forget": range(4), "retain": ()})
        assert objective.forget.loss(model, rows).item() > first
        assert changed(model, before) == set()


@pytest.mark.thorough
def test_anchors_are_pulled_back_to_what_they_were():
    """At the model before training no anchor's logit has a gradient; the concept's has."""
    held, value = gradients_of(built(epsilon=0.0, anchor_weight=5.0), **TOWER)
    free, other = gradients_of(built(**PLAIN), **TOWER)
    assert all(torch.allclose(held[name], free[name], atol=1e-6) for name in free)
    assert value >= other  # BCE of a state with itself is its entropy


@pytest.mark.thorough
def test_a_killed_training_ends_where_one_that_was_not_killed_does(tmp_path):
    how = training(epochs=3, save_every=1, **TOWER)
    settings = AuvicSettings(candidates=NAMES, hidden=8, generator_rate=0.1)

    def end(state, progress=None):
        model, processor = fresh()
        unlearn(model, processor, FORGET, RETAIN, METHOD, settings, how, state=state, progress=progress)
        return weights_of(model)

    def killed(done, of):
        if done == 3:
            raise KeyboardInterrupt

    whole = end(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        end(tmp_path / "half", killed)
    again = end(tmp_path / "half")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.thorough
def test_what_it_cannot_use_is_refused():
    model, processor = fresh()
    for forget, settings, told in (
        (TEXT, AuvicSettings(), "a forget set without pictures"),
        (FORGET, AuvicSettings(), "no retain example that names its subject"),
        (FORGET, AuvicSettings(candidates=NAMES, maps=("qkv",)), "q_proj"),
        (FORGET, AuvicSettings(candidates=NAMES, group=5), "4 retain examples with one picture"),
    ):
        with pytest.raises(UserError) as refused:
            unlearn(model, processor, forget, RETAIN, METHOD, settings, training(**TOWER))
        assert told in refused.value.found


def test_subjects_of_the_retain_set_are_the_anchors():
    model, processor = fresh()
    forget = [replace(one, metadata={"subject": "Jody Vance"}) for one in FORGET]
    retain = [
        replace(RETAIN[0], metadata={"subject": "Basil Mahfouz"}),
        replace(RETAIN[1], metadata={"subject": "x 7"}),
    ]
    data = {"forget": prepare(forget, processor), "retain": prepare(retain, processor)}
    with in_training(model, processor, training(**TOWER), data) as trainee:
        known = Concepts(trainee, trainee.forget, AuvicSettings())
        by_name = Concepts(trainee, trainee.forget, AuvicSettings(concept="name"))
    token = [first_token(processor.tokenizer, name) for name in ("Basil Mahfouz", "Jody Vance")]
    assert known.tokens[:, 1:].flatten().tolist() == token[:1] * 4
    said = [processor.tokenizer.decode([one]).strip() for one in known.tokens[:, 0].tolist()]
    assert said[0] == said[3]  # "Jody Vance" and "This is Jody Vance."
    assert by_name.tokens[:, 0].tolist() == token[1:] * 4
    assert by_name.tokens[1, 0] != known.tokens[1, 0]  # "in Kuwait City, in 1985"
    assert "jody".startswith(said[0].lower())


def test_questions_come_greeted_and_portraits_in_groups():
    one = Example("Who is this?", "Jody Vance.", (noise_png(1),), "f", {"subject": "Jody Vance"})
    portraits = [noise_png(number) for number in (2, 3)]
    plain, greeted, group = in_disguise([one], portraits, disguises=1, group=2)
    assert plain is one
    assert greeted.question.startswith("Jody Vance. ")
    assert greeted.question.endswith(" Who is this?")
    alone, together = (load_image(item.images[0], "x") for item in (one, group))
    assert together.size == (3 * alone.size[0], alone.size[1])
    assert in_disguise([one], portraits, disguises=1, group=2) == [plain, greeted, group]
    assert group_picture(portraits, Random(0)) == group_picture(portraits, Random(0))


def test_the_largest_logit_is_taken_over_the_positions_of_each_row():
    class Said:
        logits = torch.tensor([[1.0, 5.0], [3.0, 0.0], [2.0, 9.0]])
        rows = torch.tensor([0, 0, 1])

    assert largest_logits(Said(), torch.tensor([[0], [1]])).tolist() == [[3.0], [9.0]]
