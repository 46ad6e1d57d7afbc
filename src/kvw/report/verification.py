"""What ``kvw verify`` found, as lines on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvw.runs.verify import Verification

STYLES = {"holds": "green", "fails": "red", "not checked": "yellow"}


def print_verification(found: Verification) -> None:
    """One line for each check, and a verdict."""
    console = Console(highlight=False, emoji=False, markup=False)
    table = Table.grid("", "", "", padding=(0, 2, 0, 0))
    for check in found.checks:
        table.add_row(Text(check.state, style=STYLES[check.state]), check.what, Text(check.text))
    console.print(table)
    if found.holds:
        console.print("What was checked holds.")
    elif any(check.state == "fails" for check in found.checks):
        console.print("The evidence does not hold.")
    else:
        console.print("The evidence is not verified: no signature was checked.")
