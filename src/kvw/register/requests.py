"""What the entries of a register say of each request."""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from kvw.errors import UserError
from kvw.evidence.envelope import read_envelope
from kvw.evidence.statement import EDIT, EVIDENCE, RECORD, read_statement
from kvw.files import file_digest
from kvw.register.chain import Broken, Entry, append

PSEUDONYM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""No blanks and no @: a name or an address is not typed here by mistake."""
FEWEST_DIGITS = 8
"""Fewest digits of a digest that name a model."""
Outcome = Literal["done", "refused", "withdrawn"]


@dataclass
class Request:
    """A request to forget, as the register knows it.

    Attributes:
        number: From 1.
        who: A pseudonym.
        received: ISO date.
        due: ISO date.
        runs: What was done for it: fields of the entries of kind ``run``.
        holds: Models that hold it: names by the SHA-256 of their weights; those that were retired are not among them.
        forgotten: The same of models from which it was taken.
        closed: ISO date; empty if it is open.
        outcome: Outcome of a closed request.
    """

    number: int
    who: str
    received: str
    due: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    holds: dict[str, str] = field(default_factory=dict)
    forgotten: dict[str, str] = field(default_factory=dict)
    closed: str = ""
    outcome: str = ""

    def state(self, today: date) -> str:
        """``open``, ``late``, or how it was closed."""
        return self.outcome or ("late" if today.isoformat() > self.due else "open")


def request_entry(who: str, received: date, due: date | None = None) -> dict[str, Any]:
    """What is entered of a request.

    Args:
        who: Asks; a pseudonym.
        received: When the request came.
        due: When it is to be answered; None for a month after it came.

    Raises:
        UserError: ``who`` is no pseudonym, or the dates make no sense.
    """
    if not PSEUDONYM.fullmatch(who):
        raise UserError(
            "That is no pseudonym.",
            found=repr(who),
            do="take letters, digits, dots and dashes, as in case-2026-014: the register is to hold no personal data",
        )
    due = due or month_after(received)
    if due < received:
        raise UserError(
            "A request cannot be due before it came.",
            found=f"--due {due}, --received {received}",
            do="give --due a later day",
        )
    return {"kind": "request", "who": who, "received": str(received), "due": str(due)}


def add(
    path: Path,
    request: dict[str, Any],
    holds: Sequence[tuple[str, str]] = (),
    run: dict[str, Any] | None = None,
) -> list[Entry]:
    """Enter a request.

    Args:
        path: The register.
        request: From :func:`request_entry`.
        holds: SHA-256 of the weights and name of each model that holds what is to be forgotten.
        run: From :func:`linked`, if a run was made for it already.

    Returns:
        The new entries, each with the number of the request in its field ``request``.
    """
    said = [request | {"holds": [{"weights": weights, "name": name} for weights, name in holds]}]
    said += [run] if run else []

    def numbered_next(entries: list[Entry]) -> list[dict[str, Any]]:
        number = len(requests(entries)) + 1
        return [one | {"request": number} for one in said]

    return append(path, numbered_next)


def link(path: Path, number: int, run: Path) -> Entry:
    """Say which run was made for a request.

    Raises:
        UserError: There is no such open request, or see :func:`linked`.
    """
    said = linked(run) | {"request": number}

    def of_an_open_one(entries: list[Entry]) -> list[dict[str, Any]]:
        _open(entries, number)
        return [said]

    return append(path, of_an_open_one)[0]


def retire(path: Path, weights: str) -> Entry:
    """Say that a model is kept nowhere any more: neither it nor a copy of it.

    Args:
        path: The register.
        weights: SHA-256 of its weights, or the beginning of it.

    Raises:
        UserError: No request names one model that begins so.
    """

    def of_one_model(entries: list[Entry]) -> list[dict[str, Any]]:
        known = {one for request in requests(entries) for one in (*request.holds, *request.forgotten)}
        matching = sorted(one for one in known if one.startswith(weights))
        if len(matching) != 1 or len(weights) < FEWEST_DIGITS:
            raise UserError(
                f"No request names {'exactly one model' if len(matching) > 1 else 'a model'} whose digest begins so.",
                found=weights,
                do=f"give at least {FEWEST_DIGITS} digits of a digest that kvw register show prints",
            )
        return [{"kind": "retired", "weights": matching[0]}]

    return append(path, of_one_model)[0]


def close(path: Path, number: int, outcome: Outcome) -> tuple[Entry, dict[str, str]]:
    """Say that a request is answered.

    Returns:
        The new entry, and the models that hold it still: names by the SHA-256 of their weights.

    Raises:
        UserError: There is no such open request; or it is to be done and no run was made for it.
    """
    holds: dict[str, str] = {}

    def an_open_one(entries: list[Entry]) -> list[dict[str, Any]]:
        request = _open(entries, number)
        holds.update(request.holds)
        if outcome == "done" and not request.runs:
            raise UserError(f"No run was made for request {number}.", do="link one first: kvw register link NUMBER RUN")
        return [{"kind": "closed", "request": number, "outcome": outcome}]

    return append(path, an_open_one)[0], holds


def requests(entries: Sequence[Entry]) -> list[Request]:
    """The state of each request that follows from the entries.

    Raises:
        Broken: An entry says what kvw does not write.
    """
    by_number: dict[int, Request] = {}
    for entry in entries:
        try:
            _take(by_number, entry.fields)
        except (KeyError, TypeError) as error:
            raise Broken(
                "The register was not written by this version of kvw.", found=f"entry {entry.number}"
            ) from error
    return list(by_number.values())


def _take(found: dict[int, Request], said: dict[str, Any]) -> None:
    if said["kind"] == "request":
        holds = {one["weights"]: one["name"] for one in said["holds"]}
        found[said["request"]] = Request(said["request"], said["who"], said["received"], said["due"], holds=holds)
    elif said["kind"] == "run":
        request = found[said["request"]]
        request.runs.append(said)
        request.holds[said["original"]["weights"]] = said["original"]["name"]
        if said["result"]:
            request.forgotten[said["result"]] = f"result of run {len(request.runs)}"
    elif said["kind"] == "retired":
        for request in found.values():
            request.holds.pop(said["weights"], None)
            request.forgotten.pop(said["weights"], None)
    elif said["kind"] == "closed":
        request = found[said["request"]]
        request.closed, request.outcome = said["at"][:10], said["outcome"]
    else:
        raise KeyError(said["kind"])


def linked(run: Path) -> dict[str, Any]:
    """What is entered of a run: digests of its evidence, its edit and both models; nothing of its data.

    Raises:
        UserError: It has no evidence, or its record and its edit are not those of the evidence.
    """
    path = run / EVIDENCE
    envelope = read_envelope(path)
    statement = read_statement(envelope.payload)
    for name in (RECORD, EDIT):
        if not (run / name).is_file() or file_digest(run / name) != statement.digests.get(name):
            raise UserError(f"{name} in {run} is not the one that its evidence speaks of.", do="see: kvw verify")
    original = statement.predicate.original
    return {
        "kind": "run",
        "evidence": file_digest(path),
        "signed_by": envelope.signed.key if envelope.signed else "",
        "edit": statement.digests[EDIT],
        "original": {"weights": original.weights, "name": original.name},
        "result": statement.predicate.result,
    }


def month_after(day: date) -> date:
    """The same day of the next month, or its last day."""
    year, month = day.year + day.month // 12, day.month % 12 + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def _open(entries: Sequence[Entry], number: int) -> Request:
    request = numbered(requests(entries), number)
    if request.outcome:
        raise UserError(
            f"Request {number} is closed.",
            found=f"{request.outcome} on {request.closed}",
            do="enter a new request with: kvw register add",
        )
    return request


def numbered(found: Sequence[Request], number: int) -> Request:
    """The request of a number.

    Raises:
        UserError: No request has this number.
    """
    for request in found:
        if request.number == number:
            return request
    raise UserError(f"There is no request {number}.", found=f"{len(found)} requests", do="see: kvw register list")
