"""``kvw register``: who asked to be forgotten, when, what was done, and where it still is."""

from __future__ import annotations

import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from kvw.cli.launch import run_by_the_first
from kvw.cli.options import Json, find_model, print_json
from kvw.errors import UserError
from kvw.exit_codes import ExitCode

File = Annotated[Path, Parameter(help="The register, an SQLite file.")]
Number = Annotated[int, Parameter(help="Of the request.")]
DEFAULT = Path("register.sqlite")


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
    _print_head(entries[-1].head)


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
    _print_head(entry.head)


def retire(
    weights: Annotated[str, Parameter(help="SHA-256 of its weights, or eight digits of it: kvw register show.")],
    *,
    file: File = DEFAULT,
) -> None:
    """Say that a model and all its copies were deleted, so that it holds no request any more."""
    from kvw.register.requests import retire as enter

    entry = enter(file, weights)
    print(f"The model {entry.fields['weights'][:16]} is entered as retired.")
    _print_head(entry.head)


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
    _print_head(entry.head)


def show(number: Number, *, file: File = DEFAULT, json: Json = False) -> None:
    """Show one request: its runs, the models that still hold it, and those that do not any more."""
    from kvw.register.chain import read
    from kvw.register.requests import numbered, requests

    request = numbered(requests(read(file)), number)

    from kvw.register.export import as_json
    from kvw.report.register import print_request

    if json:
        print_json(as_json([request]))
    else:
        print_request(request)


def list_(*, file: File = DEFAULT, json: Json = False) -> None:
    """List all requests: open, late or closed, and in how many models each still is."""
    from kvw.register.chain import read
    from kvw.register.requests import requests

    listed = requests(read(file))

    from kvw.register.export import as_json
    from kvw.report.register import print_requests

    if json:
        print_json(as_json(listed))
    else:
        print_requests(listed)


def export(
    *,
    out: Annotated[
        Path, Parameter(help="File to write: .csv with a line for each request, or .json with all entries.")
    ],
    file: File = DEFAULT,
) -> None:
    """Write the register for others, with its head."""
    if out.suffix not in (".csv", ".json"):
        raise UserError(
            "An export ends in .csv or .json.", found=str(out), do=f"name it {out.stem}.csv or {out.stem}.json"
        )
    from kvw.output import check_output_file

    check_output_file(out, force=False, keep=[file])

    from kvw.files import write_text
    from kvw.register.chain import read
    from kvw.register.export import exported

    entries = read(file)
    write_text(out, exported(entries, out.suffix))
    print(f"{len(entries)} entries are in {out}; head {entries[-1].head if entries else 'none'}")


def verify(
    *,
    head: Annotated[
        str, Parameter(help="A head that was printed or exported earlier: the register must have grown from it.")
    ] = "",
    file: File = DEFAULT,
) -> None:
    """Find out whether the register is what was written; ends with exit code 6 if not.

    Without a head that is known from elsewhere, entries that were cut off at the end, or a register that was written
    anew from the beginning, cannot be found.
    """
    from kvw.register.chain import examine, grown_from

    entries, wrong = examine(file)
    if head and not wrong:
        wrong = grown_from(entries, head)
    for said in wrong:
        print(f"fails: {said}")
    if wrong:
        sys.exit(ExitCode.NOT_VERIFIED)
    print(f"All {len(entries)} entries are as they were written; head {entries[-1].head if entries else 'none'}")
    print(
        f"The register has grown from {head}."
        if head
        else "Whether entries were cut off at the end cannot be seen without an earlier head (--head)."
    )


def _print_head(head: str) -> None:
    """Say by what the register is known now."""
    print(f"The register's head is now {head}")


register = App(
    name="register",
    help="Keep a register of requests to forget: pseudonyms, dates, runs and models; entries are never changed.",
)
for verb in (add, link, retire, close, show, export, verify):
    register.command(run_by_the_first(verb))
register.command(run_by_the_first(list_), name="list")
