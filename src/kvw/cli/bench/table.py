"""``kvw bench table``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def table(
    out: Annotated[Path, Parameter(help="Run directory of kvw bench run.")],
    *,
    format: Annotated[Literal["markdown", "latex", "csv"], Parameter(help="Of the table.")] = "markdown",
) -> None:
    """Print the table of a finished run, from its records; of a run with several settings one table for each."""
    from kvw.bench.record import run_folders
    from kvw.bench.results import read_results
    from kvw.report.bench_tables import bench_table

    print("\n".join(bench_table(read_results(folder)).text(format) for folder in run_folders(out)), end="")
