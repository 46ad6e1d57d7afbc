"""The table of the edits that ``kvw erase`` tried."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvw.runs.record import JudgedPart, SelectionPart


def print_selection(console: Console, selection: SelectionPart) -> None:
    """The edits that were tried, by what they leave; the one that was taken is marked."""
    names = list(selection.original)
    kept = list(dict.fromkeys(name for one in selection.candidates for name in one.kept))
    asked = [name for name in names if name not in kept]
    found = "the settings given" if not selection.unit else f"the number of {selection.unit}"
    if selection.unit in ("strength", "share"):
        found = f"the {selection.unit}"
    table = Table(title=Text(f"By {found}, at least {selection.keep:.0%} kept (teacher-forced)"), title_justify="left")
    table.add_column(selection.unit or "edit", justify="right")
    for name in [*asked, *kept]:
        table.add_column(name, justify="right")
    table.add_row("none", *(_judged(selection.original[name]) for name in asked), *("100%" for _ in kept))
    for one in sorted(selection.candidates, key=lambda one: (one.where == "", one.where, one.dose or 0)):
        cells = [_judged(one.splits[name]) if name in one.splits else "-" for name in asked]
        shares = [f"{one.kept[name].value:.1%}" if name in one.kept else "-" for name in kept]
        dose = "as made" if one.dose is None else f"{one.dose:.4g} {one.where.replace('layers ', 'in ')}".strip()
        table.add_row(f"{'> ' if one.chosen else ''}{dose}", *cells, *shares, style="bold" if one.chosen else None)
    console.print(table)
    console.print(
        "Of questions: how many are answered, and the probability of what their answers say. Of the rest: what"
    )
    console.print(
        "is left of that probability, or of the perplexity. A dash: not asked, because it was decided without."
    )


def _judged(part: JudgedPart) -> str:
    return f"{part.answered}/{part.questions} {part.probability:.2f}"
