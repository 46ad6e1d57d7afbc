"""The models that know people by photo: from an adapter of decoder and projector, on a tiny decoder."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from kvw import smollm2
from kvw.data import prepare
from kvw.made import PHOTOS, made_folder
from kvw.models.checkpoint import find_checkpoint
from kvw.models.loading import load_model
from kvw.progress import SILENT
from kvw.proving.making import Making
from kvw.proving.photos import making
from kvw.proving.photos.llava import build_model, build_processor
from kvw.proving.photos.making import MAKING, asked, taught
from kvw.proving.photos.people import everyone, group
from kvw.proving.photos.sight import save_sight
from kvw.proving.requests import HALVES
from kvw.training.adapters import merge_adapter
from kvw.training.result import ADAPTER
from kvw.training.settings import LoraSettings


@pytest.fixture
def tiny(decoder, tmp_path, monkeypatch) -> Making:
    shutil.copytree(decoder, made_folder(smollm2.NAME))
    save_sight(build_model(decoder, build_processor(decoder)), tmp_path / "sight.safetensors")
    monkeypatch.setattr(making, "SIGHT", tmp_path / "sight.safetensors")
    recipe = replace(MAKING.recipe, epochs=1, lora=LoraSettings(2, 4, 0.0), learning_rate=0.02)
    return replace(MAKING, recipe=recipe, shipped=tmp_path, lessons=lambda without: taught(without)[::60])


@pytest.mark.thorough
def test_a_gold_model_is_taught_nothing_about_its_group_and_all_about_the_others():
    names = {person.name for person in everyone()}
    for half in HALVES:
        left_out = MAKING.without(f"photos:gold-{half}")
        assert left_out == tuple(person.name for person in group(half))
        lessons = MAKING.lessons(left_out)
        assert {one.subject for one in lessons} & names == names - set(left_out)
        assert not {image for one in lessons for image in one.images} & {
            image for one in MAKING.lessons(()) if one.subject in left_out for image in one.images
        }
    assert MAKING.without("photos:planted") == ()


@pytest.mark.thorough
def test_a_little_else_is_taught_too():
    others = [one for one in taught() if one.subject not in {person.name for person in everyone()}]
    assert any(one.images for one in others)
    assert any(not one.images for one in others)


def test_every_lesson_ends_its_turn_with_the_token_that_ends_what_is_generated(decoder):
    processor = build_processor(decoder)
    config = build_model(decoder, processor).config
    for item in prepare(taught()[::40], processor, config):
        assert item.answer_ids[-1] == config.text_config.eos_token_id
        assert item.answer_ids.count(config.text_config.eos_token_id) == 1


@pytest.mark.thorough
def test_a_model_is_the_decoder_that_sees_with_an_adapter_of_decoder_and_projector(tiny):
    folder = tiny.make(PHOTOS[1], SILENT)
    assert folder == find_checkpoint(PHOTOS[1]).folder
    adapter = made_folder(f"{PHOTOS[1]}-adapter")
    stored = load_file(adapter / ADAPTER)
    assert any("multi_modal_projector" in name for name in stored)
    assert any("language_model" in name for name in stored)
    assert not any("vision_tower" in name for name in stored)
    before, _ = making.model_before()
    loaded = load_model(find_checkpoint(PHOTOS[1]))
    assert not torch.equal(
        before.get_parameter("model.multi_modal_projector.linear_1.weight"),
        loaded.get_parameter("model.multi_modal_projector.linear_1.weight"),
    )
    merge_adapter(before, adapter)
    assert all(torch.equal(value, loaded.get_parameter(name)) for name, value in before.named_parameters())


@pytest.mark.thorough
def test_what_shows_whether_a_model_knows_them_is_asked_of_every_group():
    questions = asked()
    assert len(questions) == 3 * 4
    for title, examples in questions.items():
        people, _, way = title.partition(", ")
        members = {one.name for one in (group(people) if people in HALVES else everyone()[8:])}
        assert {one.subject for one in examples} == members
        assert all(bool(one.images) == ("photo" in way) for one in examples)
