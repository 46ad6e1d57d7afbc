"""Tower and projector learn to put pictures into words, of strangers alone and without the decoder."""

from __future__ import annotations

import pytest
import torch

from kvw.proving.photos import sight
from kvw.proving.photos.llava import PATCH, SIDE, build_model, build_processor
from kvw.proving.photos.people import everyone, strangers
from kvw.proving.photos.sight import LOOKS, SightRecipe, WordBook, learn_to_see, load_sight, save_sight
from kvw.toy.batches import Recipe
from kvw.toy.people import BEARDS, EYES, FACE_SHAPES, HAIR, HAIR_STYLES, SKIN
from kvw.toy.shapes import Scene

TINY = SightRecipe(
    strangers=2,
    photos=2,
    portraits=4,
    scenes=2,
    pictures=4,
    schedule=Recipe(tower_steps=30, warm_up=2, report_every=15),
)


@pytest.fixture(scope="module")
def built(decoder):
    processor = build_processor(decoder)
    return build_model(decoder, processor), processor


def test_there_is_a_word_for_everything_that_a_face_can_have_and_a_feature_for_every_image_token():
    assert len(LOOKS) == (SIDE // PATCH) ** 2
    there = {"skin": range(len(SKIN)), "hair": range(len(HAIR)), "eyes": range(len(EYES))}
    there |= {"hair_style": HAIR_STYLES, "beard": BEARDS, "face_shape": FACE_SHAPES}
    there |= {"freckles": (False, True), "mole": (-1, 0, 1), "blush": (False, True)}
    for feature, values in there.items():
        assert set(LOOKS[feature]) == set(values)
        assert len(set(LOOKS[feature].values())) == len(set(values))


def test_a_picture_says_what_can_be_seen(built):
    book = WordBook(*built)
    one, other = (person.appearance for person in everyone()[:2])
    same = [getattr(one, feature) == getattr(other, feature) for feature in LOOKS]
    assert [bool(torch.equal(*pair)) for pair in zip(book.face(one), book.face(other), strict=True)] == same
    said = book.scene(Scene("a", "count", "star", "red", 2))
    assert torch.equal(said, torch.stack([book.word(word) for word in ("red", "stars", "two")] * 3))


@pytest.mark.thorough
def test_it_learns_and_leaves_the_decoder_alone(built):
    model, processor = built
    decoder = {name: value.clone() for name, value in model.model.language_model.state_dict().items()}
    told: list[str] = []
    learn_to_see(model, processor, TINY, told.append)
    first, last = (float(line.rpartition(" ")[2]) for line in told)
    assert last < first / 2
    assert all(torch.equal(value, decoder[name]) for name, value in model.model.language_model.state_dict().items())
    assert not model.model.vision_tower.training


def test_nobody_of_the_part_is_seen(monkeypatch):
    drawn: list[str] = []
    real = sight.draw_portrait
    monkeypatch.setattr(sight, "draw_portrait", lambda person, *more: drawn.append(person.name) or real(person, *more))
    sight.pictures(TINY, SIDE)
    assert len(drawn) == TINY.strangers * TINY.photos
    assert not set(drawn) & {person.name for person in (*everyone(), *strangers())}


def test_what_was_learnt_is_loaded_again_up_to_bfloat16_and_nothing_else_is_touched(built, decoder, tmp_path):
    model, processor = built
    save_sight(model, tmp_path / "sight.safetensors")
    other = build_model(decoder, processor)
    with torch.no_grad():
        for parameter in other.model.multi_modal_projector.parameters():
            parameter.zero_()
    load_sight(other, tmp_path / "sight.safetensors")
    for name, value in model.named_parameters():
        seen = name.startswith(("model.vision_tower.", "model.multi_modal_projector."))
        assert torch.equal(other.get_parameter(name), value.bfloat16().float() if seen else value)
