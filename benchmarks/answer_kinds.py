"""What kinds of answers are given in place of the forgotten, in several runs of kvw erase.

usage: python benchmarks/answer_kinds.py RUN [RUN ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from kvw.records.run import RunRecord
from kvw.report.sheets import markdown_table
from kvw.runs.answer_classes import CLASSES


def main() -> None:
    """Print the counts of the forget split, before and after, as a table."""
    rows: list[list[str]] = []
    for place in map(Path, sys.argv[1:]):
        record = RunRecord.model_validate_json((place / "run.json").read_bytes())
        answers = record.splits["forget"].answers
        if answers is None:
            raise ValueError(f"the answers of {place} were not classed")
        if not rows:
            rows.append(["before", "", *(str(answers.original[kind]) for kind in CLASSES), "", ""])
        counts = [str(answers.unlearned[kind]) for kind in CLASSES]
        rows.append([record.method, str(place), *counts, str(answers.begun), str(answers.broken)])
    print(markdown_table(["method", "run", *CLASSES, "begun", "broken"], rows, 2))


if __name__ == "__main__":
    main()
