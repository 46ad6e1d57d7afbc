"""``python -m kvw.proving.document``: plant a page into a pretrained model, erase it, and show what is left of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kvw import smollm2
from kvw.console import ConsoleReporter
from kvw.errors import UserError
from kvw.models.checkpoint import find_checkpoint
from kvw.proving.document.study import markdown, run

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kvw.proving.document", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs and their scores")
    given = parser.parse_args(arguments)
    try:
        print(markdown(run(given.out, find_checkpoint(smollm2.NAME), ConsoleReporter())), end="")
    except UserError as error:
        print(f"error {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what was kept", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
