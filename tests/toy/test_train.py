"""Training, for a few steps on a small world."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from kvw.toy.batches import Recipe
from kvw.toy.train import save_checkpoint, train
from kvw.toy.world import World

pytestmark = pytest.mark.thorough

WORLD = World(people=5, forget=2, training_photos=6, new_photos=1)
SHORT = Recipe(tower_steps=1, steps=2, portraits=4, scenes=2, texts=2, training_scenes=8, warm_up=1)


def test_training_repeats_itself_and_its_checkpoint_comes_back(tmp_path):
    (model, processor), (again, _) = train(WORLD, recipe=SHORT), train(WORLD, recipe=SHORT)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    longer, _ = train(WORLD, recipe=Recipe(**{**vars(SHORT), "steps": 3}))
    assert not torch.equal(model.lm_head.weight, longer.lm_head.weight)
    save_checkpoint(model, processor, tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    for (name, one), other in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other.half().float()), name


def test_the_gold_model_is_trained_on_others_only():
    vanilla, _ = train(WORLD, recipe=SHORT)
    gold, _ = train(WORLD, without_forget=True, recipe=SHORT)
    assert not torch.equal(vanilla.lm_head.weight, gold.lm_head.weight)
