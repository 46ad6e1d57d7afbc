"""The table of the edits that ``kvw erase`` tried."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvw.percent import percent
from kvw.records.run import JudgedPart, KeptPart, SelectionPart
from kvw.selection.splits import ALL_HELD_OUT, FORGETTING, TEXT

WIDEST = 400
"""Columns of a terminal in which every table fits."""


def print_selection(console: Console, selection: SelectionPart) -> None:
    """The edits that were tried, by what they leave; the one that was taken is marked.

    Where not all sources of what must stay fit beside one another, one column has the one that keeps least.
    """
    table = _table(selection, every_source=True)
    if console.measure(table, options=console.options.update(width=WIDEST)).maximum > console.width:
        table = _table(selection, every_source=False)
    console.print(table)
    console.print(
        "Of forget questions: how many are answered, and below it the probability of what their answers say. Of the "
        "rest: how much is left of that probability, or of the perplexity, and below all of it how many answers are "
        "still the first choice, token by token. A dash: not asked, because it was decided without."
    )
    if selection.of_earlier:
        console.print(selection.of_earlier)


def _table(selection: SelectionPart, *, every_source: bool) -> Table:
    kept = list(dict.fromkeys(name for one in selection.candidates for name in one.kept))
    sources = [name for name in kept if name not in (TEXT, ALL_HELD_OUT)]
    if not every_source:
        kept = [name for name in kept if name not in sources]
    asked = [name for name in FORGETTING if name in selection.original]
    units = {"": "the settings given", "directions": "the number of directions"}
    by = units.get(selection.unit, f"the {selection.unit}")
    kept_at_least = f", at least {percent(selection.keep)} kept" if selection.unit else ""
    heading = f"By {by}{kept_at_least} (teacher-forced)"
    table = Table(title=Text(heading), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in (selection.unit or "edit", *asked, *kept):
        title = "all" if name == ALL_HELD_OUT else name.replace(" ", "\n", 1)
        table.add_column(title, justify="right", no_wrap=True)
    least = [] if every_source else ["100%"]
    if least:
        table.add_column("lowest\nheld-out", justify="right", no_wrap=True)
    judged = [name for name in sources if name in selection.original]
    before = sum(selection.original[name].answered for name in judged)
    whole = [f"100%\n{before}/{before}" if name == ALL_HELD_OUT else "100%" for name in kept]
    table.add_row("none", *(_judged(selection.original[name]) for name in asked), *whole, *least)
    for one in sorted(selection.candidates, key=lambda one: (one.where == "", one.where, one.dose or 0)):
        cells = [_judged(one.splits[name]) if name in one.splits else "-" for name in asked]
        shares = [f"{one.kept[name].value:.1%}" if name in one.kept else "-" for name in kept]
        if ALL_HELD_OUT in one.kept:
            still = sum(one.splits[name].answered for name in judged)
            shares[kept.index(ALL_HELD_OUT)] += f"\n{still}/{before}"
        if least:
            shares.append(_least({name: one.kept[name] for name in sources if name in one.kept}))
        dose = "as made" if one.dose is None else f"{one.dose:.4g}"
        first = f"{'> ' if one.chosen else ''}{dose}" + "".join(f"\n{part}" for part in one.where.split(", ") if part)
        table.add_row(first, *cells, *shares, style="bold" if one.chosen else None)
    return table


def _least(shares: Mapping[str, KeptPart]) -> str:
    """The source that keeps least; a dash if none was asked."""
    if not shares:
        return "-"
    name = min(shares, key=lambda one: shares[one].value)
    return f"{shares[name].value:.1%}\n{name.removeprefix('held-out ')}"


def _judged(part: JudgedPart) -> str:
    return f"{part.answered}/{part.questions}\n{part.probability:.2f}"
