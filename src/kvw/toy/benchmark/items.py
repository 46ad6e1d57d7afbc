"""The toy benchmark of kvw: two hundred fictitious people, in the shape of MLLMU-Bench; nothing is downloaded."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import cast

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.choices import shuffled
from kvw.data.benchmarks.items import BenchmarkData, Item, Kind, Modality, Task
from kvw.data.benchmarks.prompts import BARE, UNSEEN_OPTIONS
from kvw.toy.benchmark.people import FORGET_PERCENT, TASKS, benchmark_world, facts, percent, training
from kvw.toy.items import METRICS, accounts, make_item
from kvw.toy.world import LONGEST_ANSWER, Line, World

OPTIONS = 4
"""Options of a classification, the right one included."""
PERTURBED = 3
"""Wrong answers of each other item, for the truth ratio."""


def read(request: Request) -> BenchmarkData:
    """The world of a seed; a recipe's ``seed`` is that of the models."""
    return _world(request.setting, request.seed)


@lru_cache(maxsize=1)
def _world(setting: str, seed: int) -> BenchmarkData:
    world, drawn = percent(benchmark_world(seed), int(setting.removeprefix("forget"))), dict[str, bytes]()
    splits: dict[str, dict[str, Task]] = {}
    for split, name in TASKS:
        items = tuple(make_item(world, line, seed, drawn) for line in facts(world, split, name))
        splits.setdefault(split, {})[name] = _task(name, items, seed)
    return BenchmarkData(
        benchmark="toy-200",
        setting=setting,
        splits=splits,
        training={part: _items(world, training(world, part), seed, drawn) for part in ("forget", "retain")},
        accounts=accounts(splits),
    )


def _items(world: World, lines: list[Line], seed: int, drawn: dict[str, bytes]) -> tuple[Item, ...]:
    return tuple(make_item(world, line, seed, drawn) for line in lines)


def _task(name: str, items: tuple[Item, ...], seed: int) -> Task:
    kind, _, by_name = name.partition(" ")
    modality: Modality = "text" if by_name else "image"
    if kind == "classification":
        options = tuple(_with_options(item, seed) for item in items)
        return Task("choice", modality, UNSEEN_OPTIONS, ("choice_accuracy", "probability"), 1, items=options)
    open_kind = cast(Kind, "generation" if kind == "shapes" else kind)
    compared = tuple(replace(item, perturbed=item.perturbed[:PERTURBED]) for item in items)
    return Task(open_kind, modality, BARE, METRICS, LONGEST_ANSWER, items=compared)


def _with_options(item: Item, seed: int) -> Item:
    choices, correct = shuffled(item.answer, item.perturbed[: OPTIONS - 1], seed, item.identifier)
    return replace(item, choices=choices, correct=correct, perturbed=())


BENCHMARK = Benchmark(
    name="toy-200",
    title="kvw's toy benchmark",
    hub_id="",
    licence="Apache-2.0",
    paper="none; 200 fictitious people, made by kvw.toy.benchmark",
    settings=tuple(f"forget{number:02d}" for number in FORGET_PERCENT),
    read=read,
)
