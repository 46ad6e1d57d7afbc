"""Options that several verbs of ``kvw bench`` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kvw.cli.options import print_json
from kvw.settings import check_at_least

if TYPE_CHECKING:
    from pydantic import BaseModel

Recipe = Annotated[Path, Parameter(help="Recipe (TOML), or the name of one that ships with kvw: kvw bench recipes.")]
Finished = Annotated[Path, Parameter(help="Run directory of kvw bench run; the run must be finished.")]
AtMost = Annotated[int, Parameter(help="Items of each task; 0 for all that the run has asked.")]
Device = Annotated[
    str | None,
    Parameter(
        help="Where models run: cpu, an accelerator such as cuda:0, or auto to use all there are. Default: the "
        "accelerator if there is one."
    ),
]


def finished_folders(out: Path, at_most: int) -> list[Path]:
    """The folders of a run, one for each setting of its benchmark and each seed.

    Raises:
        UserError: The run is not finished, or ``at_most`` is negative.
    """
    check_at_least("--at-most", at_most, 0, do="0 asks all")

    from kvw.bench.folders import run_folders
    from kvw.bench.results import read_results

    folders = run_folders(out)
    for folder in folders:
        read_results(folder)
    return folders


def print_all(results: Sequence[BaseModel]) -> None:
    """Several results for machines, as one list."""
    print_json("[" + ",\n".join(result.model_dump_json(indent=2) for result in results) + "]")
