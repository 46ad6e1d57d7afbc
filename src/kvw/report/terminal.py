"""How results are shown on a terminal."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(*, soft_wrap: bool = False) -> Console:
    """Stdout; texts are shown as they are."""
    return Console(highlight=False, emoji=False, markup=False, soft_wrap=soft_wrap)


def number_table(*names: str, left: Collection[str] = (), title: str = "") -> Table:
    """A table of numbers, aligned to the right behind the first column.

    Args:
        names: Of the columns.
        left: Further columns that are text.
        title: Above the table; empty for none.
    """
    table = Table(title=Text(title) if title else None, title_justify="left")
    for name in names:
        table.add_column(name, justify="left" if name == names[0] or name in left else "right")
    return table


def print_warning(out: Console, text: str) -> None:
    """One warning of a run."""
    out.print(Text("warning ", style="yellow") + Text(text))
