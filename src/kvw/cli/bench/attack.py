"""``kvw bench attack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import find_model, quiet_libraries
from kvw.errors import UserError


def attack(
    out: Annotated[Path, Parameter(help="Run directory of kvw bench run; the run must be finished.")],
    *,
    attacks: Annotated[
        str,
        Parameter(help="Separated by commas: relearn-retain, relearn-forget, bf16, fp16, int8, int4."),
    ] = "relearn-retain,relearn-forget,bf16,int8,int4",
    steps: Annotated[str, Parameter(help="Training steps of relearning, separated by commas; one attack each.")] = (
        "10,100"
    ),
    learning_rate: Annotated[float, Parameter(help="Of relearning.")] = 1e-5,
    at_most: Annotated[int, Parameter(help="Items of each task; 0 for all that the run has asked.")] = 0,
) -> None:
    """Attack vanilla, gold and every method with its chosen settings, and print what came back.

    The same command goes on where it stopped; attacks that were made before are not made again. Tables are of the
    attacks that are named.
    """
    from kvw.bench.attacks.plan import parse_attacks

    wanted = parse_attacks(_parts(attacks), [_number(part) for part in _parts(steps)])
    if at_most < 0:
        raise UserError("--at-most is a number of items.", found=str(at_most), do="0 asks all")

    from kvw.bench.record import run_folders
    from kvw.bench.results import read_results

    for folder in run_folders(out):
        read_results(folder)
    quiet_libraries()

    from kvw.bench.attacks.run import attack as attack_run
    from kvw.console import ConsoleReporter
    from kvw.report.attack_tables import attack_table

    for folder in run_folders(out):
        results = attack_run(
            folder, wanted, find_model, ConsoleReporter(), learning_rate=learning_rate, at_most=at_most
        )
        table = attack_table(results)
        table.write(folder, "attacks")
        print(table.text("markdown"))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> int:
    if not text.isdigit():
        raise UserError("--steps are whole numbers, separated by commas.", found=text, do="for example --steps 10,100")
    return int(text)
