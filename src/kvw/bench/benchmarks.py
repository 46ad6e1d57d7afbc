"""The one table of benchmarks; importing this loads neither torch nor datasets."""

from __future__ import annotations

from importlib import import_module

from kvw.data.benchmarks.benchmark import Benchmark
from kvw.known import known

BENCHMARKS = {
    "toy": "kvw.toy.items",
    "toy-200": "kvw.toy.benchmark.items",
    "people": "kvw.proving.benchmark",
    "mllmu": "kvw.data.benchmarks.mllmu",
    "clear": "kvw.data.benchmarks.clear",
    "unlok-vqa": "kvw.data.benchmarks.unlok_vqa",
    "fiubench": "kvw.data.benchmarks.fiubench",
    "umu": "kvw.data.benchmarks.umu",
    "offside": "kvw.data.benchmarks.offside",
    "tofu": "kvw.data.benchmarks.tofu",
    "rwku": "kvw.data.benchmarks.rwku",
    "wmdp": "kvw.data.benchmarks.wmdp",
}
"""The module of each benchmark; it is imported when it is asked for."""


def get_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        UserError: There is none of this name; the message proposes the closest one.
    """
    module = import_module(BENCHMARKS[known(name, BENCHMARKS, "benchmark")])
    benchmark: Benchmark = module.BENCHMARK
    return benchmark
