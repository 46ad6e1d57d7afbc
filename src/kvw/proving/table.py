"""What came of all requests, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import get_args

from kvw.errors import UserError
from kvw.evaluation.metrics.intervals import Interval, mean_interval
from kvw.proving.record import RECORD, Item, ProvingRecord, State, read_record
from kvw.proving.requests import Half
from kvw.proving.verdict import (
    ABOVE_GOLD,
    KEPT,
    LARGEST_PERPLEXITY,
    Score,
    When,
    distance_to_gold,
    judge,
    kept,
    mean,
    perplexity_ratio,
)

NAMED = "named by the run"
"""Title of the unused subjects that a retain source of the run asks about."""
SCORES: tuple[Score, ...] = ("given", "chosen", "probability")
"""Of all splits; beside a gold model all scores are shown."""
WHEN: tuple[When, ...] = ("before", "after")
SHOWN = 3
"""Subjects of a request that are written out."""
CRITERIA = {
    "forget": "no forget question brings the fact",
    "retain": f"retain keeps at least {KEPT['retain']}",
    "unused": f"unused keeps at least {KEPT['unused']}",
    "plain text": f"perplexity at most {LARGEST_PERPLEXITY} times",
}
GOLD_CRITERION = {"forget": f"forget questions bring the fact at most {ABOVE_GOLD} above gold"}


def read_records(out: Path, half: Half) -> list[ProvingRecord]:
    """The records of one half, in order.

    Raises:
        UserError: There is none.
    """
    folders = sorted(file.parent for file in (out / half).glob(f"*/{RECORD}"))
    records = [record for record in map(read_record, folders) if record]
    if not records:
        raise UserError(
            f"{out} holds no records of this half.", found=half, do="run the requests first: python -m kvw.proving run"
        )
    return records


def markdown(records: Sequence[ProvingRecord]) -> str:
    """Tables: the splits, the comparison with gold where there is one, how many requests were met, and what of each.

    A number is the mean over requests, with a 95 % bootstrap interval over them in brackets where there are two or
    more.
    """
    written = [record for record in records if record.state == "written"]
    parts = [_heading(records)]
    if written:
        parts.append(_splits(written))
        if any(_has_gold(record) for record in written):
            parts.append(_beside_gold([record for record in written if _has_gold(record)]))
    parts += [_verdicts(records), _by_request(records)]
    others = [record for record in records if record.state != "written"]
    parts += [f"{one.state.capitalize()}: {one.number:02d}, {one.message.splitlines()[0]}" for one in others]
    return "\n\n".join(parts) + "\n"


def _heading(records: Sequence[ProvingRecord]) -> str:
    methods = ", ".join(sorted({record.method for record in records}))
    models = ", ".join(sorted({record.model for record in records}))
    states = Counter(record.state for record in records)
    counts = ", ".join(f"{states[state]} {state}" for state in get_args(State))
    return (
        f"{models}, {methods}: {len(records)} requests of the {records[0].half} half, {counts}. "
        "The scores are of the edits that were written."
    )


def _splits(records: Sequence[ProvingRecord]) -> str:
    titles = ["split", "questions"]
    titles += [f"{score}{when}" for score in SCORES for when in (" before", ", after", ", kept")]
    rows = [table_row(titles), table_row(["---", *["---:"] * (len(titles) - 1)])]
    for split, sets in _rows(records).items():
        cells = [split, str(sum(map(len, sets)))]
        for score in SCORES:
            having = [items for items in sets if any(getattr(item.before, score) is not None for item in items)]
            if not having:
                cells += ["", "", ""]
                continue
            cells.append(f"{fmean(mean(items, score, 'before') for items in having):.3f}")
            if split == "floor":
                cells += ["", ""]
            else:
                cells.append(interval_cell([mean(items, score, "after") for items in having]))
                cells.append(interval_cell([kept(items, score) for items in having]))
        rows.append(table_row(cells))
    before = fmean(record.perplexity.before for record in records)
    ratios = interval_cell([perplexity_ratio(record) for record in records])
    return "\n".join([*rows, "", f"Perplexity of plain text: {before:.2f} before, {ratios} times that after."])


def _has_gold(record: ProvingRecord) -> bool:
    return any(item.gold for item in record.splits["forget"])


def _beside_gold(records: Sequence[ProvingRecord]) -> str:
    titles = ["beside gold", "original", "unlearned", "gold", "distance before", "distance after"]
    rows = [table_row(titles), table_row(["---", *["---:"] * (len(titles) - 1)])]
    for split, title in (("forget", "forget"), ("held_out", "held out")):
        sets = [record.splits[split] for record in records]
        for score in get_args(Score):
            cells = [interval_cell([mean(items, score, when) for items in sets]) for when in get_args(When)]
            cells += [
                interval_cell([found for items in sets if (found := distance_to_gold(items, score, when)) is not None])
                for when in WHEN
            ]
            rows.append(table_row([f"{title}, {'ROUGE-L recall' if score == 'rouge' else score}", *cells]))
    text = "Distance: mean absolute difference to the gold model, question by question."
    return "\n".join([*rows, "", text])


def _rows(records: Sequence[ProvingRecord]) -> dict[str, list[list[Item]]]:
    """What was asked by row of the table, and in each row by record; records and rows without any are left out."""
    unused = [record.splits["unused"] for record in records]
    rows = {
        "forget": [record.splits["forget"] for record in records],
        "held out": [record.splits["held_out"] for record in records],
        "retain": [record.splits["retain"] for record in records],
        "unused": [[item for item in items if not item.named] for items in unused],
        NAMED: [[item for item in items if item.named] for items in unused],
        "floor": [record.splits["floor"] for record in records],
    }
    asked = {title: [items for items in sets if items] for title, sets in rows.items()}
    return {title: sets for title, sets in asked.items() if sets}


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _verdicts(records: Sequence[ProvingRecord]) -> str:
    verdicts = [judge(record) for record in records]
    criteria = CRITERIA | (GOLD_CRITERION if any(map(_has_gold, records)) else {})
    rows = ["| criterion | met | misses that the run announced |", "|---|---:|---:|"]
    for name, title in criteria.items():
        missed = [verdict for verdict in verdicts if name in verdict.missed]
        announced = sum(name in verdict.announced for verdict in missed)
        rows.append(f"| {title} | {len(records) - len(missed)} of {len(records)} | {announced} of {len(missed)} |")
    missed = [verdict for verdict in verdicts if verdict.missed]
    announced = sum(set(verdict.missed) == set(verdict.announced) for verdict in missed)
    rows.append(f"| **all** | {len(records) - len(missed)} of {len(records)} | {announced} of {len(missed)} |")
    return "\n".join(rows)


def _by_request(records: Sequence[ProvingRecord]) -> str:
    titles = ["request", "to forget", "forget chosen", "held out chosen", "retain kept", "unused kept", "perplexity"]
    gold = any(map(_has_gold, records))
    titles += ["distance to gold"] if gold else []
    rows = [table_row([*titles, "missed"]), table_row(["---", "---", *["---:"] * (len(titles) - 2), "---"])]
    for record in records:
        verdict = judge(record)
        cells = [f"{record.number:02d}", _some(record.subjects)]
        for split in ("forget", "held_out"):
            items = record.splits[split]
            cells.append(f"{mean(items, 'chosen', 'before'):.2f} to {mean(items, 'chosen', 'after'):.2f}")
        for split in ("retain", "unused"):
            items = [item for item in record.splits[split] if split != "unused" or not item.named]
            cells.append(f"{kept(items, 'chosen'):.3f}, {kept(items, 'probability'):.3f}")
        if record.state != "written":
            cells[2:] = [record.state, *[""] * 3]
        told = [f"{name} (told)" if name in verdict.announced else name for name in verdict.missed]
        cells.append(f"{perplexity_ratio(record):.3f}")
        if gold:
            before, after = (distance_to_gold(record.splits["forget"], "probability", when) for when in WHEN)
            cells.append("" if before is None or after is None else f"{before:.3f} to {after:.3f}")
        rows.append(table_row([*cells, ", ".join(told)]))
    text = "Kept: of the facts that are chosen first, and of the probability of the answers."
    text += " Distance to gold: of the probability of the forget answers." if gold else ""
    return "\n".join([*rows, "", text])


def _some(subjects: Sequence[str]) -> str:
    more = len(subjects) - SHOWN
    return ", ".join(subjects[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def interval_cell(values: Sequence[float]) -> str:
    """Mean with its 95 % bootstrap interval in brackets, where there are two values or more."""
    found: Interval = mean_interval(values)
    if found.low is None:
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
