"""How much faster the retain pass is than the plain loop, side by side in one run.

The plain loop is what research code does: one example at a time, a full forward with logits, hooks on every layer that
copy the coefficients to the CPU. Both take the same examples through the same processor to the same numbers.

usage: python benchmarks/measure_speed.py [MODEL] [--data FILE] [--repeats 3]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from kvw.cli.options import find_model
from kvw.data import Prepared, answer_batch, prepare, read_examples, to_model
from kvw.evaluation.loaded import Loaded
from kvw.measuring.examples import measure_examples
from kvw.measuring.statistics import Statistics
from kvw.models.finding import find_value_matrices
from kvw.models.saving import parameter_bytes
from kvw.models.value_matrix import MatrixKey
from kvw.runs.costs import peak_memory
from kvw.toy import World, write_world


def plain_loop(loaded: Loaded, prepared: list[Prepared]) -> Statistics:
    """One example at a time, full forward, coefficients of all layers copied to the CPU."""
    seen: dict[MatrixKey, torch.Tensor] = {}
    matrices = find_value_matrices(loaded.model)
    handles = [
        matrix.module.register_forward_pre_hook(
            lambda _, inputs, key=matrix.key: seen.update({key: inputs[0].detach().float().cpu()})
        )
        for matrix in matrices
    ]
    sums = {matrix.key: torch.zeros(matrix.width, dtype=torch.float64) for matrix in matrices}
    count = 0
    for item in prepared:
        batch = answer_batch([item], loaded.processor)
        predicting = batch.pop("labels")[0, 1:] != -100
        with torch.no_grad():
            loaded.model(**to_model(batch, loaded.model))
        for key, coefficients in seen.items():
            sums[key] += coefficients[0, :-1][predicting].abs().sum(0, dtype=torch.float64)
        count += int(predicting.sum())
    for handle in handles:
        handle.remove()
    return Statistics(sums, dict.fromkeys(sums, count))


def timed(work: Callable[[], Statistics]) -> tuple[float, Statistics]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def main() -> None:
    """Print the ratio and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="toy:vanilla")
    parser.add_argument("--data", type=Path, help="default: the toy world's retain set")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or write_world(World(), Path(folder))["retain"]
        loaded = Loaded.load(find_model(arguments.model))
        prepared = prepare(read_examples(data), loaded.processor)
        compare(loaded, prepared, arguments.repeats)


def compare(loaded: Loaded, prepared: list[Prepared], repeats: int) -> None:
    """Run both in turn, so that a machine that slows down slows both."""

    def ours() -> Statistics:
        return measure_examples(loaded.model, loaded.processor, prepared, layers=loaded.all_layers).statistics

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours()
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    ratios = []
    for turn in range(repeats):
        slow, reference = timed(lambda: plain_loop(loaded, prepared))
        fast, found = timed(ours)
        worst = max(
            float(((found.coefficients(key) - value) / value.clamp(min=1e-12)).abs().max())
            for key, value in ((key, reference.coefficients(key)) for key in reference.sums)
        )
        ratios.append(slow / fast)
        print(f"turn {turn + 1}: plain loop / kvw = {slow / fast:.1f}, largest relative difference {worst:.1e}")
    print(f"{len(prepared)} examples, {loaded.model.num_parameters() / 1e6:.1f} M parameters, {loaded.model.device}")
    print(f"median speed-up of the retain pass: {statistics.median(ratios):.1f} x")
    print(f"model: {parameter_bytes(loaded.model) / 1e6:.1f} MB")
    print(f"memory beyond the loaded model: process peak grew by {extra / 1e6:.1f} MB while measuring")
    print(f"peak memory by device: {peak_memory(loaded.model)}")


if __name__ == "__main__":
    main()
