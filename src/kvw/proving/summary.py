"""What came of the requests of several folders, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvw.optional import optional
from kvw.proving.record import ProvingRecord
from kvw.proving.table import interval_cell, table_row
from kvw.proving.verdict import distance_to_gold, judge, kept, mean, perplexity_ratio

ALL = "all"


def summary(folders: Mapping[str, Sequence[ProvingRecord]]) -> str:
    """A column for each folder and one for all requests.

    Scores are means over the requests with an edit, with 95 % bootstrap intervals over them. The share of requests that
    meet all criteria is of all requests, with the exact 95 % interval of Clopper and Pearson (1934).

    Args:
        folders: Records by the title of their column; at least one each.

    Raises:
        UserError: scipy is not installed.
    """
    columns = {title: _column(records) for title, records in folders.items()}
    columns[ALL] = _column([record for records in folders.values() for record in records])
    rows = [["", *columns], ["---", *["---:"] * len(columns)]]
    rows += [[name, *(column[name] for column in columns.values())] for name in columns[ALL]]
    return "\n".join(map(table_row, rows)) + "\n"


def _column(records: Sequence[ProvingRecord]) -> dict[str, str]:
    written = [record for record in records if record.state == "written"]
    forget, held_out, retain = (
        [record.splits[name] for record in written] for name in ("forget", "held_out", "retain")
    )
    unused = [[item for item in record.splits["unused"] if not item.named] for record in written]
    distances = [found for one in forget if (found := distance_to_gold(one, "probability", "after")) is not None]
    values = {
        "forget chosen, before": [mean(one, "chosen", "before") for one in forget],
        "forget chosen, after": [mean(one, "chosen", "after") for one in forget],
        "held out chosen, before": [mean(one, "chosen", "before") for one in held_out],
        "held out chosen, after": [mean(one, "chosen", "after") for one in held_out],
        "retain chosen, kept": [kept(one, "chosen") for one in retain],
        "retain probability, kept": [kept(one, "probability") for one in retain],
        "unused chosen, kept": [kept(one, "chosen") for one in unused],
        "unused probability, kept": [kept(one, "probability") for one in unused],
        "perplexity": [perplexity_ratio(record) for record in written],
        "distance to gold": distances,
    }
    verdicts = [judge(record) for record in records]
    missed = [verdict for verdict in verdicts if verdict.missed]
    told = sum(set(verdict.missed) == set(verdict.announced) for verdict in missed)
    return {
        "requests": f"{len(records)}, {len(written)} with an edit",
        **{name: interval_cell(scores) if scores else "" for name, scores in values.items()},
        "all criteria met": _share(len(records) - len(missed), len(records)),
        "misses that the run announced": f"{told} of {len(missed)}",
    }


def _share(count: int, of: int) -> str:
    found = optional("scipy.stats", use="Intervals of shares need", extra="bench").binomtest(count, of)
    low, high = found.proportion_ci(0.95, "exact")
    return f"{count} of {of} [{low:.2f}, {high:.2f}]"
