"""The planted people as a benchmark, for the models that ship with kvw: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from kvw.data import Example
from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.items import Account, BenchmarkData, Item, Task
from kvw.data.benchmarks.prompts import BARE
from kvw.proving.planted import people_requests
from kvw.proving.requests import HALVES

METRICS = ("keywords", "exact_match", "probability")
LONGEST_ANSWER = 40
TASKS = {
    ("forget", "question"): "forget",
    ("forget", "held out"): "held_out",
    ("retain", "question"): "retain",
    ("unused", "question"): "unused",
}
"""Split and task, and the part of a request that it is."""


def read(request: Request) -> BenchmarkData:
    """The request for all people of a half."""
    return _people(request.setting)


@cache
def _people(setting: str) -> BenchmarkData:
    half = next(half for half in HALVES if half == setting)
    parts = max(people_requests(half), key=lambda one: len(one.subjects)).splits
    splits: dict[str, dict[str, Task]] = {}
    for (split, task), part in TASKS.items():
        items = tuple(map(_item, parts[part]))
        splits.setdefault(split, {})[task] = Task("generation", "text", BARE, METRICS, LONGEST_ANSWER, items=items)
    return BenchmarkData(
        benchmark="planted people",
        setting=setting,
        splits=splits,
        training={name: splits[name]["question"].items for name in ("forget", "retain")},
        accounts=_accounts(splits),
    )


def _item(example: Example) -> Item:
    return Item(
        example.question,
        example.answer,
        str(example.subject),
        example.identifier,
        metadata={"row": example.identifier, "keywords": (example.metadata["fact"],)},
    )


def _accounts(splits: dict[str, dict[str, Task]]) -> tuple[Account, ...]:
    """Of every task: all rows became items."""
    counts: Sequence[tuple[str, int]] = [
        (f"{split}/{name}", len(task.items)) for split, tasks in splits.items() for name, task in tasks.items()
    ]
    return tuple(Account(name, count, 0, count, count, ()) for name, count in counts)


BENCHMARK = Benchmark(
    name="people",
    title="kvw's planted people",
    hub_id="",
    licence="Apache-2.0 (FIUBench) and MIT (TOFU), see SOURCES.md beside the facts",
    paper="none; fictitious people of FIUBench and TOFU, planted by kvw",
    settings=HALVES,
    read=read,
)
