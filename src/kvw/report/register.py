"""Requests to forget, as tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from rich.table import Table
from rich.text import Text

from kvw.plural import counted
from kvw.register.requests import Request
from kvw.report.terminal import console

STYLES = {"late": "red", "open": "yellow"}


def print_requests(found: Sequence[Request]) -> None:
    """A line for each request."""
    table = Table("request", "who", "received", "due", "state", "runs", "still in", box=None, padding=(0, 2, 0, 0))
    for request in found:
        still = counted(len(request.holds), "model")
        days = (request.received, request.due, _state(request))
        table.add_row(str(request.number), Text(request.who), *days, str(len(request.runs)), still)
    console().print(table)


def print_request(request: Request) -> None:
    """All that is known of one request."""
    table = Table.grid("", "", padding=(0, 2, 0, 0))
    table.add_row("request", str(request.number))
    table.add_row("who", Text(request.who))
    table.add_row("received, due", f"{request.received}, {request.due}")
    table.add_row("state", _state(request))
    for run in request.runs:
        by = f"signed with key {run['signed_by'][:16]}" if run["signed_by"] else "not signed"
        table.add_row("run", f"evidence {run['evidence'][:16]}, edit {run['edit'][:16]}, {by}, {run['at'][:10]}")
    for title, models in (("still in", request.holds), ("taken from", request.forgotten)):
        for weights, name in models.items():
            table.add_row(title, Text(f"{weights[:16]} {name}"))
    console().print(table)


def _state(request: Request) -> Text:
    state = request.state(date.today())
    closed = f" on {request.closed}" if request.closed else ""
    return Text(state + closed, style=STYLES.get(state, ""))
