"""The vision tower of the toy benchmark: it learns to look at faces on strangers whom no model is ever asked about.

Real models start from a tower that was trained on other pictures than those of the benchmark. So does this one: it is
trained once, on invented faces that belong to nobody in the benchmark, to name what can be seen of a face and whose it
is, and on the shapes. All models share it, unchanged. What a model knows about the benchmark's people is therefore in
only the projector and the language model, and no gold model has a tower that has seen the people to forget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from random import Random

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, mse_loss
from transformers import CLIPVisionModel, LlavaProcessor

from kvw.toy.batches import Recipe, shifted, train_in_place
from kvw.toy.people import (
    BEARDS,
    EYES,
    FACE_SHAPES,
    HAIR,
    HAIR_STYLES,
    MEASURES,
    SKIN,
    Appearance,
    Person,
    draw_appearance,
)
from kvw.toy.portraits import draw_portrait
from kvw.toy.shapes import COLOURS, COUNTS, SHAPES, Scene, draw_scene

CHOICES: dict[str, tuple[object, ...]] = {
    "skin": tuple(range(len(SKIN))),
    "hair": tuple(range(len(HAIR))),
    "hair_style": HAIR_STYLES,
    "beard": tuple(dict.fromkeys(BEARDS)),
    "face_shape": FACE_SHAPES,
    "eyes": tuple(range(len(EYES))),
    "freckles": (False, True),
    "mole": (-1, 0, 1),
    "blush": (False, True),
}
"""The features of a face that have a few values, each named by a linear head."""


@dataclass(frozen=True)
class TowerRecipe:
    """How the tower is trained.

    Args:
        strangers: How many invented faces.
        photos: Photographs of each.
        portraits: Portraits per step.
        scenes: Pictures of shapes per step.
        schedule: Steps (``tower_steps``) and learning rate.
    """

    strangers: int = 1500
    photos: int = 8
    portraits: int = 64
    scenes: int = 16
    schedule: Recipe = field(default_factory=lambda: Recipe(tower_steps=1500))


def make_strangers(count: int, seed: int) -> list[Person]:
    """Invent faces that have no name and no facts; the same arguments give the same faces."""
    random = Random(f"strangers {seed}")
    return [Person(index, f"stranger {seed} {index}", {}, draw_appearance(random)) for index in range(count)]


def train_tower(
    tower: CLIPVisionModel, processor: LlavaProcessor, scenes: list[Scene], seed: int, recipe: TowerRecipe
) -> list[float]:
    """Train the tower in place on strangers and shapes.

    The loss is the sum of cross-entropies of the person, of every key of ``CHOICES`` and of a shape's colour, kind
    and count, and ten times the mean squared error of ``MEASURES``, scaled to -1 to 1. The heads are linear maps of
    the mean image token and are thrown away.

    Args:
        tower: What is trained.
        processor: Gives the size and the normalisation of images.
        scenes: The pictures of shapes to train on.
        seed: Seed of strangers, heads and batches.
        recipe: How.

    Returns:
        The mean loss of every ``report_every`` steps.
    """
    size = processor.image_processor.crop_size["height"]
    strangers = make_strangers(recipe.strangers, seed)
    portraits = [draw_portrait(person, photo, size) for person in strangers for photo in range(recipe.photos)]
    pictures = Pictures([*portraits, *(draw_scene(scene, size) for scene in scenes)], processor)
    choices, measures = _looks([person.appearance for person in strangers])
    shapes = torch.tensor([_scene_labels(scene) for scene in scenes])
    sizes = [len(strangers), *(len(values) for values in CHOICES.values()), len(MEASURES)]
    scene_sizes = [len(COLOURS), len(SHAPES), len(COUNTS)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = tower.config.hidden_size
        heads = torch.nn.ModuleList([torch.nn.Linear(width, sum(sizes)), torch.nn.Linear(width, sum(scene_sizes))])
    random = Random(f"tower {seed}")

    def loss(_: int) -> torch.Tensor:
        rows = torch.tensor([random.randrange(len(portraits)) for _ in range(recipe.portraits)])
        seen = torch.tensor([random.randrange(len(scenes)) for _ in range(recipe.scenes)])
        who = rows // recipe.photos
        pixels = pictures.shifted(torch.cat([rows, seen + len(portraits)]), random)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = tower(pixels).last_hidden_state[:, 1:].float().mean(dim=1)
        *named, measured = heads[0](pooled[: len(rows)]).split(sizes, dim=1)
        parts = heads[1](pooled[len(rows) :]).split(scene_sizes, dim=1)
        wanted = [who, *choices[who].T]
        total = 10 * mse_loss(measured, measures[who])
        for found, right in (*zip(named, wanted, strict=True), *zip(parts, shapes[seen].T, strict=True)):
            total = total + cross_entropy(found, right)
        return total

    student, schedule = torch.nn.ModuleList([tower, heads]), recipe.schedule
    return train_in_place(student, schedule, schedule.tower_steps, loss, partial(print, "tower", flush=True))


class Pictures:
    """Many small images, kept as bytes and normalised when they are shown.

    Args:
        images: All of the size that the processor makes.
        processor: Its image processor's mean and standard deviation are used.
    """

    def __init__(self, images: list[Image.Image], processor: LlavaProcessor) -> None:
        self.bytes = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        settings = processor.image_processor
        self.mean = torch.tensor(settings.image_mean).view(1, 3, 1, 1)
        self.deviation = torch.tensor(settings.image_std).view(1, 3, 1, 1)

    def normalised(self, rows: torch.Tensor) -> torch.Tensor:
        """The images of some rows as the image processor gives them, float32 (rows, 3, side, side)."""
        return (self.bytes[rows].float() / 255 - self.mean) / self.deviation

    def shifted(self, rows: torch.Tensor, random: Random) -> torch.Tensor:
        """The same, each shifted a little: see :func:`~kvw.toy.batches.shifted`."""
        return shifted(self.normalised(rows), random)


def _looks(appearances: list[Appearance]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions in ``CHOICES`` (faces, choices) and measures scaled to -1 to 1 (faces, measures)."""
    choices = [[values.index(getattr(look, key)) for key, values in CHOICES.items()] for look in appearances]
    measures = [
        [2 * (getattr(look, key) - low) / (high - low) - 1 for key, (low, high) in MEASURES.items()]
        for look in appearances
    ]
    return torch.tensor(choices), torch.tensor(measures)


def _scene_labels(scene: Scene) -> list[int]:
    return [tuple(COLOURS).index(scene.colour), tuple(SHAPES).index(scene.shape), scene.count - 1]
