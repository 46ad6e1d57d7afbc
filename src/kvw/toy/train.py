"""Train a toy model from scratch on a CPU: ``python -m kvw.toy.train --out DIR``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from kvw.data import read_examples
from kvw.data.batches import IGNORED
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.exit_codes import program
from kvw.toy.batches import Batches, Recipe, train_in_place
from kvw.toy.model import build_model, build_processor
from kvw.toy.tower import train_tower
from kvw.toy.world import LONGEST_ANSWER, World, write_world


def train(
    world: World, *, without_forget: bool = False, recipe: Recipe | None = None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Train a model from scratch; the loss is on the answer and the end-of-sequence token only.

    Args:
        world: What to teach.
        without_forget: Leave out the people to forget (the gold model).
        recipe: Steps, batches and learning rate.
    """
    recipe = recipe or Recipe()
    processor = build_processor(world)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        model = build_model(world, processor)
    people = world.training_people(without_forget=without_forget)
    batches = Batches(world, people, processor, recipe)
    train_tower(model, batches, recipe)
    samples = recipe.portraits + recipe.scenes + recipe.texts

    def loss(_: int) -> torch.Tensor:
        found = torch.zeros(())
        for batch in (batches.about_images(), batches.by_name()):
            found = found + len(batch["labels"]) / samples * _loss(model, batch)
        return found

    train_in_place(model, recipe, recipe.steps, loss, partial(print, flush=True))
    return model, processor


def _loss(model: LlavaForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens; only their positions go through the output layer."""
    labels = batch.pop("labels")[:, 1:]
    hidden = model.model(**batch, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels != IGNORED
    return cross_entropy(model.lm_head(hidden[wanted]), labels[wanted])


def save_checkpoint(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a checkpoint whose weights are stored as float16 and computed with in float32."""
    weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)


def make_checkpoint(world: World, out: Path, *, without_forget: bool, recipe: Recipe) -> dict[str, Any]:
    """Train, save, reload, measure, and put the finished checkpoint in its place in one step.

    Args:
        world: What to teach.
        out: The new folder.
        without_forget: Leave out the people to forget (the gold model).
        recipe: Steps, batches and learning rate.

    Returns:
        What ``world.json`` says: the world, the recipe, and the exact match on every split.

    Raises:
        UserError: The folder exists already.
    """
    if out.exists():
        raise UserError("The output folder exists already.", found=str(out), do="choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    model, processor = train(world, without_forget=without_forget, recipe=recipe)
    record: dict[str, Any] = {
        "world": asdict(world),
        "without_forget": without_forget,
        "recipe": asdict(recipe),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
        "training_seconds": round(time.monotonic() - started),
        "exact_match": {},
    }
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / "checkpoint"
        save_checkpoint(model, processor, folder)
        # What counts is what was written, so the checkpoint is measured as a user would load it.
        written = AutoModelForImageTextToText.from_pretrained(folder)
        reader = cast(Any, AutoProcessor).from_pretrained(folder)
        files = write_world(world, Path(scratch) / "data")
        splits = {split: read_examples(file) for split, file in files.items()}
        found = evaluate(cast(Any, written), reader, splits, max_new_tokens=LONGEST_ANSWER)
        for split, summary in found.summaries.items():
            record["exact_match"][split] = round(summary.exact, 4)
            print(f"{split:<24} {summary.exact:.4f}", flush=True)
        (folder / "world.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        folder.replace(out)
    return record


@program
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the toy model from scratch.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; must not exist")
    parser.add_argument("--people", type=int, default=World.people)
    parser.add_argument("--forget", type=int, default=World.forget)
    parser.add_argument("--seed", type=int, default=World.seed)
    parser.add_argument("--without-forget", action="store_true", help="train the gold model")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=1, help="the weights' last digits depend on it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    world = World(people=arguments.people, forget=arguments.forget, seed=arguments.seed)
    recipe = Recipe(steps=arguments.steps)
    make_checkpoint(world, arguments.out, without_forget=arguments.without_forget, recipe=recipe)


if __name__ == "__main__":
    sys.exit(main())
