"""What KVW reaches on the toy world: exact match by split over gamma, beside the gold model, as a table.

usage: python benchmarks/sweep_gamma.py [--schedule progressive|one-shot] [--gammas 0.005 0.01 ...] [--examples 120]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.loaded import Loaded
from kvw.methods.kvw.settings import KvwSettings
from kvw.quiet import quiet_libraries
from kvw.report.tables import print_evaluations, print_sweep
from kvw.runs.costs import Stopwatch
from kvw.runs.erase import check
from kvw.runs.request import EraseRequest, read_data
from kvw.runs.solving import measure_retain
from kvw.runs.sweep import sweep
from kvw.toy import SPLITS, World, write_world
from kvw.toy.world import LONGEST_ANSWER

GAMMAS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08)


def main() -> None:
    """Sweep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=["progressive", "one-shot"], default="progressive")
    parser.add_argument("--gammas", type=float, nargs="+", default=GAMMAS)
    parser.add_argument("--examples", type=int, default=120, help="per split")
    parser.add_argument("--layers", type=int, nargs=2, help="first and last; default 1 .. L-3")
    arguments = parser.parse_args()
    quiet_libraries()
    reporter = ConsoleReporter()
    watch = Stopwatch(reporter)
    with tempfile.TemporaryDirectory() as folder:
        files = write_world(World(), Path(folder) / "data")
        layers = tuple(arguments.layers) if arguments.layers else None
        request = EraseRequest(
            model=find_model("toy:vanilla"),
            forget=files["forget"],
            retain=files["retain"],
            out=Path(folder) / "run",
            method="kvw",
            settings=KvwSettings(seed=0, schedule=arguments.schedule, layers=layers),
            splits={name: files[name] for name in SPLITS if name not in ("forget", "retain")},
            evaluate_at_most=arguments.examples,
            max_new_tokens=LONGEST_ANSWER,
        )
        job = check(request, watch, reporter)
        with watch.stage("sweeping gamma") as progress:
            points = sweep(job, measure_retain(job, watch, reporter), arguments.gammas, progress)
        gold = Loaded.load(find_model("toy:gold"))
        found = evaluate(gold.model, gold.processor, read_data(request).scored, max_new_tokens=LONGEST_ANSWER)
    print_sweep(points)
    print_evaluations({"gold": found})


if __name__ == "__main__":
    main()
