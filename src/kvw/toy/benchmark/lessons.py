"""Training batches of the toy benchmark: random questions about photos, by name, and about shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from transformers import CLIPVisionModel, LlavaProcessor

from kvw.toy.benchmark.packing import Packed, Packer
from kvw.toy.benchmark.questions import ask
from kvw.toy.benchmark.tower import Pictures
from kvw.toy.people import ATTRIBUTES, NAME, Person
from kvw.toy.portraits import draw_portrait
from kvw.toy.shapes import Scene, draw_scene
from kvw.toy.world import World

SHIFTS = 2
"""How many shifted copies of every training image there are."""


@dataclass(frozen=True)
class BatchSizes:
    """How many rows of which kind a step holds, and how many questions a row.

    Args:
        portraits: Rows about a person's photo.
        scenes: Rows about a picture of shapes.
        texts: Rows of questions by name, each about another person.
        portrait_questions: Questions per portrait.
        scene_questions: Questions per picture of shapes.
        text_questions: Questions per row of text.
        cloze: The share of questions about people that are sentences with a blank.
    """

    portraits: int = 18
    scenes: int = 3
    texts: int = 3
    portrait_questions: int = 6
    scene_questions: int = 4
    text_questions: int = 12
    cloze: float = 0.4


class Features:
    """What the frozen tower sees in every training image.

    Args:
        tower: The tower; not changed.
        processor: Its image processor.
        world: Whose photos.
        people: Whose photos are taken.
        scenes: The pictures of shapes, after the photos.
    """

    def __init__(
        self,
        tower: CLIPVisionModel,
        processor: LlavaProcessor,
        world: World,
        people: Sequence[Person],
        scenes: Sequence[Scene],
    ) -> None:
        self.people, self.photos, self.scenes = list(people), world.training_photos, list(scenes)
        size, photos = world.image_size, range(world.training_photos)
        images = [draw_portrait(person, photo, size) for person in people for photo in photos]
        images += [draw_scene(scene, size) for scene in scenes]
        pictures, seen = Pictures(images, processor), []
        with torch.no_grad():
            for shift in range(SHIFTS):
                random = Random(f"shift {shift} {world.seed}")
                for rows in torch.split(torch.arange(len(images)), 64):
                    seen.append(tower(pictures.shifted(rows, random)).last_hidden_state[:, 1:].half())
        self.seen = torch.cat(seen)
        """The image tokens before the projector, all images once for every shift: float16 (images, tokens, width)."""

    def portrait(self, position: int, random: Random) -> torch.Tensor:
        """A photo of the person at a position, (tokens, width)."""
        return self._pick(position * self.photos + random.randrange(self.photos), random)

    def scene(self, position: int, random: Random) -> torch.Tensor:
        """A picture of shapes, (tokens, width)."""
        return self._pick(len(self.people) * self.photos + position, random)

    def _pick(self, row: int, random: Random) -> torch.Tensor:
        images = len(self.seen) // SHIFTS
        return self.seen[random.randrange(SHIFTS) * images + row].float()


class Lessons:
    """Makes batches of random questions about the people of one model.

    Args:
        features: The images, with the people that may be asked about.
        packer: Turns questions into tokens.
        sizes: How many of what.
        seed: Seed of the questions.
    """

    def __init__(self, features: Features, packer: Packer, sizes: BatchSizes, seed: str) -> None:
        self.features, self.packer, self.sizes, self.random = features, packer, sizes, Random(seed)

    def step(self, people: int) -> list[Packed]:
        """The batches of one step, on portraits, shapes, and by name.

        Args:
            people: How many people are asked about, from the first on.
        """
        sizes, random, features = self.sizes, self.random, self.features
        shown = [random.randrange(people) for _ in range(sizes.portraits)]
        portraits = [
            [self._about(features.people[position], None) for _ in range(sizes.portrait_questions)]
            for position in shown
        ]
        seen = [random.randrange(len(features.scenes)) for _ in range(sizes.scenes)]
        scenes = [
            [self._about_scene(features.scenes[position]) for _ in range(sizes.scene_questions)] for position in seen
        ]
        texts = [[self._by_name(people) for _ in range(sizes.text_questions)] for _ in range(sizes.texts)]
        return [
            self.packer.pack(portraits, [features.portrait(position, random) for position in shown]),
            self.packer.pack(scenes, [features.scene(position, random) for position in seen]),
            self.packer.pack(texts),
        ]

    def _by_name(self, people: int) -> tuple[str, str]:
        person = self.features.people[self.random.randrange(people)]
        return self._about(person, person.name)

    def _about(self, person: Person, name: str | None) -> tuple[str, str]:
        """A question about a person and its answer; by name unless that is absent."""
        attribute = self.random.choice((NAME, *ATTRIBUTES) if name is None else tuple(ATTRIBUTES))
        form = "cloze" if self.random.random() < self.sizes.cloze else "question"
        return ask(form, attribute, self.random.randrange(60), name=name), person.answer(attribute)

    def _about_scene(self, scene: Scene) -> tuple[str, str]:
        return scene.question(self.random.randrange(1000), held_out=False), scene.answer
