"""A register for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from kvw.register.chain import Entry
from kvw.register.requests import Request, requests

COLUMNS = ("request", "who", "received", "due", "state", "closed", "runs", "still_in", "taken_from")


def as_json(found: Sequence[Request]) -> str:
    """Requests as a JSON list, each with its state today."""
    return json.dumps([_described(request) for request in found], indent=2)


def exported(entries: Sequence[Entry], ending: str) -> str:
    """The text of an export.

    Args:
        entries: All of the register.
        ending: ``.csv``: a line for each request, models by the SHA-256 of their weights. ``.json``: that and every
            entry, so that the chain can be followed without kvw.
    """
    listed = requests(entries)
    if ending == ".json":
        chain = [{"number": entry.number, "digest": entry.digest, "content": entry.fields} for entry in entries]
        head = entries[-1].head if entries else None
        content = {"head": head, "requests": [_described(request) for request in listed], "entries": chain}
        return json.dumps(content, indent=2) + "\n"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for request in listed:
        runs = " ".join(run["evidence"] for run in request.runs)
        models = [" ".join(request.holds), " ".join(request.forgotten)]
        days = [request.received, request.due, request.state(date.today()), request.closed]
        writer.writerow([request.number, request.who, *days, runs, *models])
    return out.getvalue()


def _described(request: Request) -> dict[str, Any]:
    return asdict(request) | {"state": request.state(date.today())}
