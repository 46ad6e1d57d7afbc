"""What the toy model is trained on: questions, answers and images as batches of tensors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, cast

import torch
from PIL import Image
from transformers import LlavaProcessor

from kvw.data.batches import IGNORED
from kvw.toy.people import ATTRIBUTES, NAME, Person
from kvw.toy.portraits import draw_portrait
from kvw.toy.questions import PHRASINGS, phrase
from kvw.toy.shapes import COLOURS, SHAPES, draw_scene, make_scenes
from kvw.toy.world import World

JITTER = 3
"""Most pixels by which training images are shifted in either direction."""


@dataclass(frozen=True)
class Recipe:
    """How a toy model is trained; the defaults are those of the shipped checkpoints.

    Args:
        tower_steps: Optimiser steps of the first stage, in which the vision tower learns to see.
        steps: Optimiser steps of the second stage, in which everything is trained on questions and answers.
        portraits: Questions about portraits per step.
        scenes: Questions about shapes per step.
        texts: Text-only questions per step.
        training_scenes: How many different pictures of shapes there are.
        learning_rate: The highest one, reached after ``warm_up`` steps; it then falls to zero as a cosine.
        warm_up: Steps.
        weight_decay: AdamW's, on matrices only.
        report_every: Steps between two printed losses.
    """

    tower_steps: int = 1200
    steps: int = 1200
    portraits: int = 44
    scenes: int = 20
    texts: int = 16
    training_scenes: int = 6000
    learning_rate: float = 1.5e-3
    warm_up: int = 60
    weight_decay: float = 0.05
    report_every: int = 50


@dataclass(frozen=True)
class Sample:
    """One training example: what is asked and answered, and which training image is shown, if any."""

    question: str
    answer: str
    row: int | None


class Batches:
    """Draws a world's training images once and makes batches of random questions about them.

    Args:
        world: The world to teach.
        people: Whom to teach; the gold model's batches never hold the forget people.
        processor: Turns images and conversations into tensors.
        recipe: How many samples of which kind a batch holds.
    """

    def __init__(self, world: World, people: Sequence[Person], processor: LlavaProcessor, recipe: Recipe) -> None:
        self.world, self.people, self.processor, self.recipe = world, people, processor, recipe
        self.random = Random(f"training {world.seed}")
        self.scenes = make_scenes(recipe.training_scenes, world.seed, held_out=False)
        images = [
            draw_portrait(person, photo, world.image_size)
            for person in people
            for photo in range(world.training_photos)
        ]
        images += [draw_scene(scene, world.image_size) for scene in self.scenes]
        self.any_image = images[0]
        pixels: torch.Tensor = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        self.pixels = pixels.half()
        """All training images, portraits before scenes, in float16 to save memory: (images, 3, side, side)."""
        colours, shapes = list(COLOURS), list(SHAPES)
        self.scene_labels = torch.tensor(
            [[colours.index(scene.colour), shapes.index(scene.shape), scene.count - 1] for scene in self.scenes]
        )
        # There are only a few thousand different questions, and rendering one takes milliseconds.
        self.encode_prompt = lru_cache(maxsize=None)(self._encode_prompt)

    def about_images(self) -> dict[str, torch.Tensor]:
        """Questions about portraits and shapes, as arguments of the model and labels."""
        samples = [self._portrait() for _ in range(self.recipe.portraits)]
        samples += [self._scene() for _ in range(self.recipe.scenes)]
        rows = torch.tensor([sample.row for sample in samples])
        return self._collate(samples) | {"pixel_values": shifted(self.pixels[rows].float(), self.random)}

    def labelled_images(self, portraits: int, scenes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Random images for learning to see.

        Returns:
            The images, portraits before scenes (images, 3, side, side); the position of every portrait's person
            (portraits); colour, shape and count less one of every scene (scenes, 3).
        """
        photos = self.world.training_photos
        first = len(self.people) * photos
        shown = torch.tensor([self.random.randrange(first) for _ in range(portraits)])
        seen = torch.tensor([self.random.randrange(len(self.scenes)) for _ in range(scenes)])
        pixels = shifted(self.pixels[torch.cat([shown, first + seen])].float(), self.random)
        return pixels, shown // photos, self.scene_labels[seen]

    def by_name(self) -> dict[str, torch.Tensor]:
        """Text-only questions about people, as arguments of the model and labels."""
        return self._collate([self._text() for _ in range(self.recipe.texts)])

    def encode(self, sample: Sample) -> tuple[list[int], int]:
        """The tokens of a sample's whole conversation and how many of them are prompt."""
        prompt = self.encode_prompt(sample.question, sample.row is not None)
        # This is how the chat template continues a prompt.
        answer = f" {sample.answer}{self.processor.tokenizer.eos_token}"
        return prompt + self.processor.tokenizer.encode(answer, add_special_tokens=False), len(prompt)

    def _portrait(self) -> Sample:
        position = self.random.randrange(len(self.people))
        attribute = self.random.choice((NAME, *ATTRIBUTES))
        number = self.random.randrange(len(PHRASINGS[attribute].training))
        row = position * self.world.training_photos + self.random.randrange(self.world.training_photos)
        return Sample(phrase(attribute, number), self.people[position].answer(attribute), row)

    def _scene(self) -> Sample:
        position = self.random.randrange(len(self.scenes))
        scene = self.scenes[position]
        row = len(self.people) * self.world.training_photos + position
        return Sample(scene.question(self.random.randrange(1000), held_out=False), scene.answer, row)

    def _text(self) -> Sample:
        person = self.random.choice(self.people)
        attribute = self.random.choice(tuple(ATTRIBUTES))
        number = self.random.randrange(len(PHRASINGS[attribute].training))
        return Sample(phrase(attribute, number, name=person.name), person.answer(attribute), None)

    def _collate(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        encoded = [self.encode(sample) for sample in samples]
        longest = max(len(tokens) for tokens, _ in encoded)
        ids = torch.full((len(encoded), longest), self.processor.tokenizer.pad_token_id)
        labels = torch.full_like(ids, IGNORED)
        mask = torch.zeros_like(ids)
        for index, (tokens, prompt) in enumerate(encoded):
            ids[index, : len(tokens)] = torch.tensor(tokens)
            labels[index, prompt : len(tokens)] = ids[index, prompt : len(tokens)]
            mask[index, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def _encode_prompt(self, question: str, with_image: bool) -> list[int]:
        messages = conversation(question, self.any_image if with_image else None)
        encoded = cast(Any, self.processor).apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        tokens: list[int] = encoded["input_ids"][0]
        return tokens


def conversation(question: str, image: Image.Image | None = None, answer: str | None = None) -> list[dict[str, Any]]:
    """Chat messages in the form that ``apply_chat_template`` takes."""
    parts: list[dict[str, Any]] = [] if image is None else [{"type": "image", "image": image}]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def train_in_place(
    module: torch.nn.Module,
    recipe: Recipe,
    steps: int,
    loss: Callable[[int], torch.Tensor],
    say: Callable[[str], None],
) -> list[float]:
    """Descend a loss; afterwards the module is in evaluation mode.

    Args:
        module: All its parameters are trained.
        recipe: Learning rate, and how often losses are told.
        steps: How many.
        loss: The loss of a step, counted from 1.
        say: Told of the losses.

    Returns:
        The mean loss of every ``report_every`` steps.
    """
    optimizer, losses, total, started = make_optimizer(module, recipe), list[float](), 0.0, time.monotonic()
    module.train()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        found = loss(step)
        torch.autograd.backward(found)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += found.item()
        if step % recipe.report_every == 0:
            losses.append(round(total / recipe.report_every, 4))
            say(f"step {step} of {steps}, loss {losses[-1]:.4f}, {time.monotonic() - started:.0f} s")
            total = 0.0
    module.eval()
    return losses


def make_optimizer(module: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices but not on norms and biases."""
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for parameter in module.parameters() if parameter.ndim > 1],
            "weight_decay": recipe.weight_decay,
        },
        {
            "params": [parameter for parameter in module.parameters() if parameter.ndim <= 1],
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of a step (counted from 1) out of ``steps``: a linear warm-up, then half a cosine."""
    if step <= recipe.warm_up:
        return recipe.learning_rate * step / recipe.warm_up
    progress = (step - recipe.warm_up) / (steps - recipe.warm_up)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def shifted(pixels: torch.Tensor, random: Random) -> torch.Tensor:
    """Every image shifted a little, its edge repeated, so that no photo is known by its exact pixels.

    Args:
        pixels: (images, 3, side, side), any floating dtype.
        random: Says how far: by up to :data:`JITTER` pixels in either direction.
    """
    side = pixels.shape[-1]
    padded = torch.nn.functional.pad(pixels, (JITTER,) * 4, mode="replicate")
    moved = torch.empty_like(pixels)
    for index in range(len(pixels)):
        top, left = random.randint(0, 2 * JITTER), random.randint(0, 2 * JITTER)
        moved[index] = padded[index, :, top : top + side, left : left + side]
    return moved
