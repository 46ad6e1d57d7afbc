"""``kvw bench calibrate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import find_model, quiet_libraries
from kvw.errors import UserError


def calibrate(
    out: Annotated[Path, Parameter(help="Run directory of kvw bench run; the run must be finished.")],
    *,
    tau: Annotated[
        str, Parameter(help="Shares of vanilla's extraction strength on retain questions to keep, separated by commas.")
    ] = "0.95,0.9,0.8",
    at_most: Annotated[int, Parameter(help="Items of each task; 0 for all that the run has asked.")] = 0,
) -> None:
    """Compare the methods at equal retention: each is mixed with vanilla until it keeps enough.

    The same command goes on where it stopped; what was measured before is not measured again.
    """
    taus = [_share(part.strip()) for part in tau.split(",") if part.strip()]
    if not taus:
        raise UserError("Name at least one share to keep.", do="for example --tau 0.95,0.9")
    if at_most < 0:
        raise UserError("--at-most is a number of items.", found=str(at_most), do="0 asks all")

    from kvw.bench.record import run_folders
    from kvw.bench.results import read_results

    for folder in run_folders(out):
        read_results(folder)
    quiet_libraries()

    from kvw.bench.calibration.run import calibrate_run
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.calibration_tables import calibration_table

    for folder in run_folders(out):
        results = calibrate_run(folder, taus, find_model, ConsoleReporter(), at_most=at_most)
        write_text(folder / "calibration.json", results.model_dump_json(indent=2) + "\n")
        table = calibration_table(results)
        table.write(folder, "calibration")
        print(table.text("markdown"))


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(
            "--tau takes shares from 0 to 1, separated by commas.", found=text, do="for example --tau 0.95,0.9"
        )
    return share
