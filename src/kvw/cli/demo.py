"""``kvw demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import Force, Json, check_output, print_result
from kvw.quiet import quiet_libraries


def demo(
    *,
    out: Annotated[Path, Parameter(help="Run directory to write.")] = Path("demo-run"),
    force: Force = False,
    json: Json = False,
) -> None:
    """Forget four people of the shipped toy model and compare with a model that never knew them.

    Toys test code. smollm2:135m is a small pretrained model to try kvw on: python -m kvw.smollm2 makes it.
    """
    check_output(out, force=force, keep=[])
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.report.plots import plot_demo
    from kvw.report.tables import print_demo
    from kvw.runs.demo import demo as run

    record = run(out, ConsoleReporter(), force=force)
    plot_demo(record, out / "run" / "samples.jsonl", out / "tradeoff.png")
    print_result(record, print_demo, out, json=json)
