"""Unlearning benchmarks, read from the hub or from a copy; importing this loads neither torch nor datasets."""

from __future__ import annotations

from importlib import import_module

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.folds import only, two_folds
from kvw.data.benchmarks.items import Account, BenchmarkData, Item, Task, Unusable, known
from kvw.data.benchmarks.prompts import Prompt
from kvw.data.benchmarks.protocol import ZERO_SHOT, Protocol, examples

BENCHMARKS = {
    "toy": "kvw.data.benchmarks.toy",
    "toy-200": "kvw.data.benchmarks.toy_200",
    "mllmu": "kvw.data.benchmarks.mllmu",
    "clear": "kvw.data.benchmarks.clear",
    "unlok-vqa": "kvw.data.benchmarks.unlok_vqa",
    "fiubench": "kvw.data.benchmarks.fiubench",
    "umu": "kvw.data.benchmarks.umu",
    "offside": "kvw.data.benchmarks.offside",
    "tofu": "kvw.data.benchmarks.tofu",
}
"""The module of each benchmark; it is imported when it is asked for."""

__all__ = [
    "BENCHMARKS",
    "ZERO_SHOT",
    "Account",
    "Benchmark",
    "BenchmarkData",
    "Item",
    "Prompt",
    "Protocol",
    "Request",
    "Task",
    "Unusable",
    "examples",
    "get_benchmark",
    "only",
    "two_folds",
]


def get_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        UserError: There is none of this name; the message proposes the closest one.
    """
    module = import_module(BENCHMARKS[known(name, BENCHMARKS, "benchmark", "kvw")])
    benchmark: Benchmark = module.BENCHMARK
    return benchmark
