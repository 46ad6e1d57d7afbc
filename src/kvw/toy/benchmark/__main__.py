"""The command line of the toy benchmark's models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvw.exit_codes import program
from kvw.toy.benchmark.train import BenchmarkRecipe, make_models


@program
def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m kvw.toy.benchmark", description="Train the vanilla and the gold models of the toy benchmark."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the models; complete ones in it are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="worlds of people")
    parser.add_argument("--workers", type=int, default=2, help="models trained at a time")
    arguments = parser.parse_args()
    make_models(arguments.out, arguments.seeds, BenchmarkRecipe(), workers=arguments.workers)


if __name__ == "__main__":
    sys.exit(main())
