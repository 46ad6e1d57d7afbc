"""Unlearning benchmarks, read from the hub or from a copy; importing this loads neither torch nor datasets."""

from __future__ import annotations

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.folds import only, two_folds
from kvw.data.benchmarks.items import Account, BenchmarkData, Item, Task, Unusable
from kvw.data.benchmarks.prompts import Prompt
from kvw.data.benchmarks.protocol import ZERO_SHOT, Protocol, examples
