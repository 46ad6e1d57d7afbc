"""Questions with their answers before and after: those that changed most, and some that did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.pages.verdict import asks_forgotten, asks_others
from kvw.records.run import RunRecord
from kvw.records.samples import Row

CHANGED, STILL, UNCHANGED, WORST = 6, 2, 3, 3
"""Most questions on the page: of the forgotten those that changed most and those still answered; of the others those
answered as before and those that changed most."""


@dataclass(frozen=True)
class Case:
    """Questions under one heading."""

    title: str
    rows: list[Row]


def cases(record: RunRecord, rows: Sequence[Row]) -> list[Case]:
    """Choose them; the same rows give the same cases.

    Args:
        record: Says which splits ask about the forgotten.
        rows: Rows of ``samples.jsonl``.
    """
    both = [row for row in rows if "original" in row.replies and "unlearned" in row.replies]
    about = {name for name, split in record.splits.items() if name == "forget" or asks_forgotten(split)}
    others = {name for name, split in record.splits.items() if name == "retain" or asks_others(split)} - about
    forget = sorted((row for row in both if row.split in about), key=_change, reverse=True)
    keep = sorted((row for row in both if row.split in others), key=_change)
    gone = [row for row in forget if not row.replies["unlearned"].right and row.replies["original"].right] or [
        row for row in forget if not row.replies["unlearned"].right
    ]
    groups = [
        Case("About the forgotten: what changed most", _different(gone, CHANGED)),
        Case(
            "About the forgotten: still answered",
            _different([row for row in forget if row.replies["unlearned"].right], STILL),
        ),
        Case("About others: answered as before", _different([row for row in keep if _as_before(row)], UNCHANGED)),
        Case("About others: what changed most", _different([row for row in reversed(keep) if _lost(row)], WORST)),
    ]
    return [case for case in groups if case.rows]


def _change(row: Row) -> float:
    """How much of the probability of the reference answer is lost; where it is not known, whether the answer is."""
    before, after = (row.replies[name].probability for name in ("original", "unlearned"))
    if before is None or after is None:
        return float(row.replies["original"].right) - float(row.replies["unlearned"].right)
    return before - after


def _as_before(row: Row) -> bool:
    return row.replies["original"].right and row.replies["unlearned"].right


def _lost(row: Row) -> bool:
    return row.replies["original"].right and not row.replies["unlearned"].right


def _different(rows: Sequence[Row], most: int) -> list[Row]:
    """Up to ``most`` rows, no two the same; of different reference answers as far as there are."""
    different: list[Row] = []
    for fresh in (True, False):
        for row in rows:
            known = {one.reference if fresh else (one.question, one.reference) for one in different}
            if len(different) < most and (row.reference if fresh else (row.question, row.reference)) not in known:
                different.append(row)
    return different
