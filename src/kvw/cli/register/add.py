"""``kvw register add``."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import find_model
from kvw.cli.register.options import DEFAULT, File, print_head


def add(
    *,
    who: Annotated[str, Parameter(help="Who asks: a pseudonym, as in case-2026-014; no name.")],
    received: Annotated[datetime | None, Parameter(help="Day on which the request came; today if not given.")] = None,
    due: Annotated[
        datetime | None, Parameter(help="Day by which it is to be answered; a month later by default.")
    ] = None,
    holds: Annotated[
        list[str] | None,
        Parameter(negative="", help="A model that holds what is to be forgotten. Repeatable. All weights are read."),
    ] = None,
    run: Annotated[Path | None, Parameter(help="Run directory of kvw erase that was made for it already.")] = None,
    file: File = DEFAULT,
) -> None:
    """Enter a request to forget; makes the register if there is none."""
    from kvw.measuring.fingerprint import weights_digest
    from kvw.register import requests
    from kvw.register.chain import begin

    models = [find_model(model) for model in holds or []]
    entry = requests.request_entry(who, received.date() if received else date.today(), due.date() if due else None)
    made = requests.linked(run) if run else None
    known = [(weights_digest(model.folder), model.name) for model in models]
    if begin(file):
        print(f"A new register was begun: {file}")
    entries = requests.add(file, entry, known, made)
    print(f"Request {entries[0].fields['request']} is entered; it is due on {entry['due']}.")
    print_head(entries[-1].head)
