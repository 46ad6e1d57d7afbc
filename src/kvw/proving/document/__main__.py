"""``python -m kvw.proving.document``: plant a page into a pretrained model, erase it, and show what is left of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kvw import smollm2
from kvw.console import ConsoleReporter
from kvw.exit_codes import program
from kvw.models.checkpoint import find_checkpoint
from kvw.proving.document.study import markdown, run


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m kvw.proving.document", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs and their scores")
    given = parser.parse_args(arguments)
    print(markdown(run(given.out, find_checkpoint(smollm2.NAME), ConsoleReporter())), end="")


if __name__ == "__main__":
    sys.exit(main())
