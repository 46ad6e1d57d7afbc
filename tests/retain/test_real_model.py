"""The shipped questions on a real pretrained model."""

from __future__ import annotations

import os

import pytest
from tests.conftest import USER_CACHE

from kvw import smollm2
from kvw.data import Example
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint
from kvw.retain.proposals import neighbour_names
from kvw.retain.sources import gather

pytestmark = pytest.mark.slow

COUNTRIES = (
    "Chile Brazil Ecuador Uruguay Paraguay Colombia Mexico Bolivia Spain Argentina Venezuela Portugal France Guatemala "
    "Panama Cuba Honduras Nicaragua Italy Germany Japan China India Canada Australia Egypt Kenya Ghana"
)


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setitem(os.environ, "KVW_CACHE", str(USER_CACHE))
    try:
        checkpoint = find_checkpoint(smollm2.NAME)
    except UserError as error:
        pytest.skip(str(error))
    return Loaded.load(checkpoint, "cpu")


def test_one_pass_of_answers_serves_every_forget_set(loaded, monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))  # answers that are there already would hide what is generated
    made = []
    generate = loaded.model.generate
    monkeypatch.setattr(loaded.model, "generate", lambda **inputs: made.append(1) or generate(**inputs))
    peru = [Example("What is the capital of Peru?", "The capital of Peru is Lima.")]
    dogs = [Example("What does a dog eat?", "A dog eats meat.", metadata={"subject": "dog"})]
    settings = {"sources": ["everyday", "text"], "names": [], "takes_images": False}
    everyday, text = gather(loaded, peru, **settings)
    batches = len(made)
    assert batches > 0
    assert len(everyday.examples) + everyday.left_out + everyday.unusable == 499
    assert everyday.unusable < 50
    assert everyday.left_out < 10
    assert text.left_out == 0
    loaded.prepare(everyday.examples)
    other, without_dogs = gather(loaded, dogs, **settings)
    assert len(made) == batches
    assert 0 < other.left_out < 50
    assert without_dogs.left_out > 0
    assert not any("dog" in f"{one.question} {one.answer}".lower().split() for one in other.examples)


def test_a_model_names_countries_beside_a_country(loaded):
    forget = [Example("What is the capital of Peru?", "Lima.", metadata={"subject": "Peru"})]
    names = neighbour_names(loaded, forget)["peru"]
    assert len(names) >= 8
    assert "Peru" not in names
    assert len(set(COUNTRIES.split()) & set(names)) > len(names) / 2
