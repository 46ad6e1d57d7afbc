"""``kvw methods``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import Json, print_json

OPTIONS = """{default} runs unless --method names another. These options matter most:
  --keep 0.98         share of what must stay that is left; decides the strength
  --neighbours FILE   names like those to be forgotten; else from the model
  --strength NUMBER   fixes the strength by hand, 1 being the edit as found
"""


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

    from kvw.methods.describing import settings_of
    from kvw.methods.registry import DEFAULT, get_method, installed

    if name:
        rows = [asdict(setting) for setting in settings_of(name)]
    else:
        names = [DEFAULT, *(method for method in installed() if method != DEFAULT)]
        found = {method: get_method(method) for method in names}
        rows = [{"name": method, "text": one.summary, "firmness": one.firmness} for method, one in found.items()]
    if json:
        print_json(json_module.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for row in rows:
        default = f" = {row['default']}" if name else ""
        more = f" [{row['kind']}]" if name else f" Known from: {row['firmness']}." if row["firmness"] else ""
        table.add_row(Text(f"{row['name']}{default}"), Text(f"{row['text']}{more}"))
    console = Console(highlight=False, emoji=False, markup=False)
    if not name:
        console.print(OPTIONS.format(default=DEFAULT))
    console.print(table)
    more = f"kvw erase ... --method {name} --set NAME=VALUE" if name else "Settings: kvw methods NAME"
    console.print(more)
