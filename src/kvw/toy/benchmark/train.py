"""Train the models of the toy benchmark on a CPU: ``python -m kvw.toy.benchmark --out DIR``.

One vision tower, trained on strangers, is shared by all. Every model is then trained from the same untrained language
model for equally many steps: the vanilla one on everybody, each gold one on everybody but the people of its forget set.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from kvw.claim import new_directory
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.files import write_text
from kvw.toy.batches import Recipe, train_in_place
from kvw.toy.benchmark.lessons import BatchSizes, Features, Lessons
from kvw.toy.benchmark.packing import Packer, packed_loss
from kvw.toy.benchmark.people import FORGET_PERCENT, TASKS, benchmark_world, example, facts, percent
from kvw.toy.benchmark.questions import corpus
from kvw.toy.benchmark.tower import TowerRecipe, train_tower
from kvw.toy.model import PATCH, build_model, build_processor
from kvw.toy.shapes import make_scenes
from kvw.toy.train import save_checkpoint
from kvw.toy.world import LONGEST_ANSWER, World

MODELS: dict[str, int | None] = {"vanilla": None} | {f"gold-forget{number:02d}": number for number in FORGET_PERCENT}
"""Folder of each model, and the forget set that it has never met, in per cent of the people."""

TOWER_SEED = 0
"""One tower serves all seeds: it has seen none of the people."""
VOCABULARY = 2048
"""Enough for every word of the benchmark to be one token."""
RECORD = "world.json"


@dataclass(frozen=True)
class BenchmarkRecipe:
    """How the models are trained.

    Args:
        tower: The vision tower, trained once.
        sizes: Batches of the language model.
        scenes: How many different pictures of shapes there are.
        language: Steps and learning rate of projector and language model.
        beginners: About how many people the first questions are. Facts about few are learnt at once, and what is
            learnt with them, how a fact is looked up, need not be learnt again.
        beginner_steps: Steps with fewer people at the beginning.
        asked: How many items of every split and task the finished models are asked.
    """

    tower: TowerRecipe = field(default_factory=TowerRecipe)
    sizes: BatchSizes = field(default_factory=BatchSizes)
    scenes: int = 3000
    language: Recipe = field(default_factory=lambda: Recipe(steps=1500, learning_rate=1.5e-3, warm_up=60))
    beginners: int = 30
    beginner_steps: int = 200
    asked: int = 180


@dataclass(frozen=True)
class Workshop:
    """Where and how models are made.

    Args:
        out: The folder of everything.
        recipe: How.
        world: What is taught; its forget group is not looked at.
    """

    out: Path
    recipe: BenchmarkRecipe
    world: World

    @property
    def folder(self) -> Path:
        """The folder of the models of this world."""
        return self.out / f"seed-{self.world.seed}"

    def untrained(self) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
        """The model before any training; the same for all."""
        processor = build_processor(self.world, corpus(self.world.everyone), VOCABULARY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.world.seed)
            model = build_model(self.world, processor)
        return model, processor

    def make_tower(self) -> None:
        """Train the vision tower on strangers, unless that has been done with the same recipe."""
        settings = _plain(asdict(self.recipe.tower))
        if not self._finished(self.out / "tower", settings):
            model, processor = self.untrained()
            started = time.monotonic()
            scenes = make_scenes(self.recipe.scenes, TOWER_SEED, held_out=False)
            losses = train_tower(model.model.vision_tower, processor, scenes, TOWER_SEED, self.recipe.tower)
            with new_directory(self.out / "tower", "model", public=True) as folder:
                save_file(model.model.vision_tower.state_dict(), folder / "tower.safetensors")
                record = {"recipe": settings, "losses": losses, "seconds": round(time.monotonic() - started)}
                write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")

    def make_model(self, name: str) -> None:
        """Train one of ``MODELS``, save it, load it, and ask it; unless that has been done with the same recipe."""
        settings = _plain({"world": asdict(self.world), "recipe": asdict(self.recipe), "threads": 1})
        if self._finished(self.folder / name, settings):
            return
        started = time.monotonic()
        model, processor = self.untrained()
        model.model.vision_tower.load_state_dict(load_file(self.out / "tower" / "tower.safetensors"))
        left_out = {person.index for person in self._forgotten(MODELS[name])}
        people = [person for person in self.world.everyone if person.index not in left_out]
        scenes = make_scenes(self.recipe.scenes, self.world.seed, held_out=False)
        features = Features(model.model.vision_tower, processor, self.world, people, scenes)
        packer = Packer(processor, (self.world.image_size // PATCH) ** 2)
        lessons = Lessons(features, packer, self.recipe.sizes, f"lessons {self.world.seed}")
        losses = self._teach(model, lessons, f"seed {self.world.seed}, {name}")
        record: dict[str, Any] = {
            "recipe": settings,
            "people": len(people),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "losses": losses,
            "seconds": round(time.monotonic() - started),
        }
        with new_directory(self.folder / name, "model", public=True) as folder:
            save_checkpoint(model.train(False), processor, folder)
            scores = self._ask(folder, MODELS[name] or FORGET_PERCENT[-1])
            write_text(folder / RECORD, json.dumps(record | {"exact_match": scores}, indent=1) + "\n")
        for place, score in scores.items():
            print(f"seed {self.world.seed}, {name:<8} {place:<24} {score:.4f}", flush=True)

    def _forgotten(self, number: int | None) -> Sequence[Any]:
        return [] if number is None else percent(self.world, number).groups["forget"]

    def _finished(self, folder: Path, settings: dict[str, Any]) -> bool:
        """Whether a part is complete."""
        record = folder / RECORD
        if not record.is_file():
            return False
        if json.loads(record.read_text(encoding="utf-8"))["recipe"] != settings:
            raise UserError(f"{folder} was made with other settings.", do="choose another --out, or remove the folder")
        return True

    def _teach(self, model: LlavaForConditionalGeneration, lessons: Lessons, label: str) -> list[float]:
        """Train projector and language model in place; the loss is on answers only.

        Returns:
            The mean loss of every ``report_every`` steps.
        """
        schedule = self.recipe.language
        learner = torch.nn.ModuleList([model.model.multi_modal_projector, model.model.language_model])
        everybody = len(lessons.features.people)

        def loss(step: int) -> torch.Tensor:
            people = min(self.recipe.beginners, everybody) if step <= self.recipe.beginner_steps else everybody
            with torch.autocast("cpu", torch.bfloat16):
                return packed_loss(model, lessons.step(people))

        return train_in_place(learner, schedule, schedule.steps, loss, partial(print, f"{label}:", flush=True))

    def _ask(self, folder: Path, number: int) -> dict[str, float]:
        """Ask a saved model the first items of every split and task, as a user would load it.

        Returns:
            The share of exact answers for every ``split/task``.
        """
        model = AutoModelForImageTextToText.from_pretrained(folder)
        processor = cast(Any, AutoProcessor).from_pretrained(folder)
        world = percent(self.world, number)
        splits = {
            f"{split}/{task}": [
                example(line, world.image_size) for line in facts(world, split, task)[: self.recipe.asked]
            ]
            for split, task in TASKS
        }
        found = evaluate(cast(Any, model), processor, splits, max_new_tokens=LONGEST_ANSWER)
        return {name: round(summary.exact, 4) for name, summary in found.summaries.items()}


def make_models(out: Path, seeds: Sequence[int], recipe: BenchmarkRecipe, *, workers: int = 2) -> None:
    """Make the tower and, for every seed, all of ``MODELS``; what is complete in ``out`` is kept.

    Args:
        out: The folder of everything.
        seeds: Which worlds.
        recipe: How.
        workers: How many models are trained at a time, each by a process with one thread; the weights do not depend
            on it.

    Raises:
        UserError: Something in ``out`` was made with another recipe.
    """
    shops = [Workshop(out, recipe, benchmark_world(seed)) for seed in seeds]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(_alone, shops[0].make_tower).result()
        for made in [pool.submit(_alone, shop.make_model, name) for shop in shops for name in MODELS]:
            made.result()


def _alone(work: Callable[..., None], *arguments: str) -> None:
    """Do something with one thread: sums come out the same whoever else is at work."""
    torch.set_num_threads(1)
    work(*arguments)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    return cast(dict[str, Any], json.loads(json.dumps(settings)))
