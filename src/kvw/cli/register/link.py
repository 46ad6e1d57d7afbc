"""``kvw register link``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.register.options import DEFAULT, File, Number, print_head


def link(
    number: Number,
    run: Annotated[Path, Parameter(help="Run directory of kvw erase.")],
    *,
    file: File = DEFAULT,
) -> None:
    """Say which run was made for a request: digests of its evidence, its edit and both models are entered."""
    from kvw.register.requests import link as enter

    entry = enter(file, number, run)
    print(f"Run {entry.fields['evidence'][:16]} is entered for request {number}.")
    print_head(entry.head)
