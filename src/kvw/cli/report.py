"""``kvw report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import ShowExamples, quiet_libraries


def report(
    run: Annotated[Path, Parameter(help="What kvw erase --out wrote.")],
    *,
    show_examples: ShowExamples = False,
) -> None:
    """Make report.html of a finished run again: one page of what was forgotten, what was kept, and what it cost."""
    from kvw.runs.first_checks import check_run_folder

    check_run_folder(run)
    quiet_libraries()

    from kvw.runs.reporting import report as write

    print(write(run, show_examples=show_examples))
