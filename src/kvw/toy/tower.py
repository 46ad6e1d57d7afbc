"""The first stage of training: only the vision tower learns to tell people and shapes apart.

LLaVA starts from a vision tower that can see already. Here the tower learns to see on the same training photos,
with linear heads on the mean of its image tokens that are thrown away afterwards. Without this stage the language
model learns for hundreds of steps before it gets anything out of the images.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from kvw.toy.batches import Batches, Recipe, train_in_place
from kvw.toy.shapes import COLOURS, COUNTS, SHAPES

PORTRAITS, SCENES = 64, 40
"""Images of either kind per step."""


def train_tower(model: LlavaForConditionalGeneration, batches: Batches, recipe: Recipe) -> None:
    """Train the vision tower in place to name the person, or the shape's colour, kind and count.

    Args:
        model: The model whose tower is trained; nothing else of it changes.
        batches: Where the training images come from.
        recipe: Steps and learning rate.
    """
    tower = model.model.vision_tower
    sizes = [len(COLOURS), len(SHAPES), len(COUNTS)]
    # A fork keeps the heads from depending on what else draws from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(batches.world.seed)
        person_head = torch.nn.Linear(tower.config.hidden_size, len(batches.people))
        scene_head = torch.nn.Linear(tower.config.hidden_size, sum(sizes))
    student = torch.nn.ModuleList([tower, person_head, scene_head])

    def loss(_: int) -> torch.Tensor:
        pixels, people, scenes = batches.labelled_images(PORTRAITS, SCENES)
        pooled = tower(pixels).last_hidden_state[:, 1:].mean(dim=1)
        person_loss = cross_entropy(person_head(pooled[:PORTRAITS]), people)
        parts = scene_head(pooled[PORTRAITS:]).split(sizes, dim=1)
        scene_losses = [cross_entropy(part, scenes[:, index]) for index, part in enumerate(parts)]
        return person_loss + torch.stack(scene_losses).sum()

    train_in_place(student, recipe, recipe.tower_steps, loss, partial(print, "tower", flush=True))
