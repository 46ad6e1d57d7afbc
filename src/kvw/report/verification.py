"""What ``kvw verify`` found, as lines on stdout."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from kvw.report.terminal import console
from kvw.runs.verify import Verification

STYLES = {"holds": "green", "fails": "red", "not checked": "yellow"}


def print_verification(found: Verification) -> None:
    """One line for each check, and a verdict."""
    screen = console()
    table = Table.grid("", "", "", padding=(0, 2, 0, 0))
    for check in found.checks:
        table.add_row(Text(check.state, style=STYLES[check.state]), check.what, Text(check.text))
    screen.print(table)
    if found.holds:
        screen.print("What was checked holds.")
    elif any(check.state == "fails" for check in found.checks):
        screen.print("The evidence does not hold.")
    else:
        screen.print("The evidence is not verified: no signature was checked.")
