"""``kvw methods``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import Json, print_json


def methods(
    name: Annotated[str, Parameter(help="Show the settings of this method; leave out to list all methods.")] = "",
    /,
    *,
    json: Json = False,
) -> None:
    """List the methods of kvw erase, or the settings of one with their types and defaults."""
    import json as json_module
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kvw.methods.describing import settings_of, summary
    from kvw.methods.registry import METHODS

    if name:
        rows = [asdict(setting) for setting in settings_of(name)]
    else:
        rows = [{"name": method, "text": summary(method)} for method in METHODS]
    if json:
        print_json(json_module.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for row in rows:
        default = f" = {row['default']}" if name else ""
        table.add_row(Text(f"{row['name']}{default}"), Text(f"{row['text']} [{row['kind']}]" if name else row["text"]))
    console = Console(highlight=False, emoji=False, markup=False)
    console.print(table)
    more = f"kvw erase ... --method {name} --set NAME=VALUE" if name else "Settings: kvw methods NAME"
    console.print(more)
