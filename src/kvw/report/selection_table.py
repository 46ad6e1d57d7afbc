"""The table of the edits that ``kvw erase`` tried."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvw.percent import percent
from kvw.records.run import JudgedPart, SelectionPart
from kvw.selection.splits import ALL_HELD_OUT, FORGETTING


def print_selection(console: Console, selection: SelectionPart) -> None:
    """The edits that were tried, by what they leave; the one that was taken is marked."""
    kept = list(dict.fromkeys(name for one in selection.candidates for name in one.kept))
    asked = [name for name in FORGETTING if name in selection.original]
    units = {"": "the settings given", "directions": "the number of directions"}
    by = units.get(selection.unit, f"the {selection.unit}")
    kept_at_least = f", at least {percent(selection.keep)} kept" if selection.unit else ""
    heading = f"By {by}{kept_at_least} (teacher-forced)"
    table = Table(title=Text(heading), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in (selection.unit or "edit", *asked, *kept):
        title = "all" if name == ALL_HELD_OUT else name.replace(" ", "\n", 1)
        table.add_column(title, justify="right", no_wrap=True)
    table.add_row("none", *(_judged(selection.original[name]) for name in asked), *("100%" for _ in kept))
    for one in sorted(selection.candidates, key=lambda one: (one.where == "", one.where, one.dose or 0)):
        cells = [_judged(one.splits[name]) if name in one.splits else "-" for name in asked]
        shares = [f"{one.kept[name].value:.1%}" if name in one.kept else "-" for name in kept]
        dose = "as made" if one.dose is None else f"{one.dose:.4g}"
        first = f"{'> ' if one.chosen else ''}{dose}" + "".join(f"\n{part}" for part in one.where.split(", ") if part)
        table.add_row(first, *cells, *shares, style="bold" if one.chosen else None)
    console.print(table)
    console.print(
        "Of forget questions: how many are answered, and below it the probability of what their answers say. Of the "
        "rest: how much is left of that probability, or of the perplexity. A dash: not asked, because it was decided "
        "without."
    )


def _judged(part: JudgedPart) -> str:
    return f"{part.answered}/{part.questions}\n{part.probability:.2f}"
