"""``kvw register close``."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.register.options import DEFAULT, File, Number, print_head


def close(
    number: Number,
    *,
    outcome: Annotated[
        Literal["done", "refused", "withdrawn"], Parameter(help="How the request ended. done needs a run.")
    ] = "done",
    file: File = DEFAULT,
) -> None:
    """Say that a request is answered."""
    from kvw.register.requests import close as enter

    entry, holds = enter(file, number, outcome)
    print(f"Request {number} is closed: {outcome}.")
    for weights, name in holds.items():
        print(f"It is still in {name} ({weights[:16]}), unless kvw register retire says that this model is gone.")
    print_head(entry.head)
