"""The toy world of kvw as a benchmark, for the models that ship with it: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.choices import order_key
from kvw.data.benchmarks.items import Account, BenchmarkData, Item, Modality, Task
from kvw.data.benchmarks.prompts import BARE
from kvw.data.images import png
from kvw.toy.people import ATTRIBUTES, NAME
from kvw.toy.world import LONGEST_ANSWER, Line, World

TASKS: dict[str, tuple[str, Modality]] = {
    "seen": ("", "image"),
    "new photos": ("_new_photos", "image"),
    "new phrasings": ("_new_phrasings", "image"),
    "text": ("_text", "text"),
}
"""Task, the split of the toy world that it is, and whether a photo is shown."""
METRICS = ("exact_match", "probability", "truth_ratio")
PERTURBED = 5
"""Wrong answers of each item, for the truth ratio."""


def read(request: Request) -> BenchmarkData:
    """The world of the shipped models."""
    return _world(request.setting, request.seed)


@lru_cache(maxsize=1)
def _world(setting: str, seed: int) -> BenchmarkData:
    world, drawn = World(), dict[str, bytes]()
    splits: dict[str, dict[str, Task]] = {}
    for group in ("forget", "retain", "unused"):
        splits[group] = {
            task: _task(world, f"{group}{variant}", modality, seed, drawn)
            for task, (variant, modality) in TASKS.items()
        }
    splits["general"] = {"shapes": _task(world, "general", "image", seed, drawn)}
    training = {part: splits[part]["seen"].items for part in ("forget", "retain")}
    return BenchmarkData(
        benchmark="toy world",
        setting=setting,
        splits=splits,
        training=training,
        accounts=accounts(splits),
    )


def accounts(splits: Mapping[str, Mapping[str, Task]]) -> tuple[Account, ...]:
    """Of every task: all rows became items."""
    return tuple(
        Account(f"{split}/{name}", len(task.items), 0, len(task.items), len(task.items), ())
        for split, tasks in splits.items()
        for name, task in tasks.items()
    )


def _task(world: World, split: str, modality: Modality, seed: int, drawn: dict[str, bytes]) -> Task:
    items = tuple(make_item(world, line, seed, drawn) for line in world.split(split))
    return Task("generation", modality, BARE, METRICS, LONGEST_ANSWER, items=items)


def make_item(world: World, line: Line, seed: int, drawn: dict[str, bytes]) -> Item:
    """A line as an item with wrong answers of the same kind.

    Args:
        world: Where the line is from.
        line: What is asked.
        seed: Seed of the order of the wrong answers.
        drawn: Encoded images by file name; what is missing is drawn and added.
    """
    if line.image_name and line.image_name not in drawn and (picture := line.draw(world.image_size)) is not None:
        drawn[line.image_name] = png(picture)
    values = (
        [person.name for person in world.everyone] if line.attribute == NAME else ATTRIBUTES.get(line.attribute, ())
    )
    wrong = sorted((value for value in values if value != line.answer), key=lambda value: order_key(seed, line, value))
    return Item(
        question=line.question,
        answer=line.answer,
        # Pictures of shapes are about nobody; each stands for itself.
        subject=line.subject if line.person else line.identifier,
        identifier=line.identifier,
        images=(drawn[line.image_name],) if line.image_name else (),
        perturbed=tuple(wrong[:PERTURBED]),
        metadata={"row": line.identifier, "attribute": line.attribute},
    )


BENCHMARK = Benchmark(
    name="toy",
    title="kvw's toy world",
    hub_id="",
    licence="Apache-2.0",
    paper="none; 40 fictitious people, made by kvw.toy",
    settings=("forget10",),
    read=read,
)
