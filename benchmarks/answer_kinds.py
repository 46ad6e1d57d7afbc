"""What kinds of answers are given in place of the forgotten: by runs of kvw erase, and by all models of benchmark runs.

usage: python benchmarks/answer_kinds.py RUN [RUN ...]

RUN is the folder of kvw erase or of kvw bench run. Of a benchmark run a method has the settings that each half of the
subjects has chosen, and is counted on the other half.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from kvw.bench.attacks.plan import find_targets
from kvw.bench.finished import FinishedRun
from kvw.bench.folders import MANIFEST
from kvw.bench.results import read_results
from kvw.progress import SILENT
from kvw.records.run import RunRecord
from kvw.report.sheets import markdown_table
from kvw.runs.answer_classes import CLASSES, AnswerClass, Classifier, counts
from kvw.runs.costs import Stopwatch


def of_a_run(place: Path) -> Iterator[list[str]]:
    """The forget split before and after, of a run of kvw erase."""
    record = RunRecord.model_validate_json((place / "run.json").read_bytes())
    answers = record.splits["forget"].answers
    if answers is None:
        raise ValueError(f"the answers of {place} were not classed")
    yield ["before", str(place), *_cells(answers.original), "", ""]
    yield [record.method, str(place), *_cells(answers.unlearned), str(answers.begun), str(answers.broken)]


def of_a_benchmark(place: Path) -> Iterator[list[str]]:
    """The forget split of every model of a run of kvw bench run."""
    results = read_results(place)
    finished = FinishedRun(place, results.manifest, Stopwatch(SILENT))
    asked = {(*one.place, one.example.identifier): one for one in finished.asked}
    classifier = Classifier(one.example for one in finished.asked)
    halves, split = results.manifest.folds, finished.recipe.choice.forget
    found: dict[str, list[AnswerClass]] = {}
    for target in find_targets(results.manifest, results.choices, finished.records):
        for item in finished.files.items(target.record.identifier) or []:
            if item.split == split and 1 - halves[item.subject] in target.chosen_on:
                example = asked[item.split, item.task, item.identifier].example
                kind = classifier.kind(example.question, example.subject_key, example.answer, item.reply or "")
                found.setdefault(target.record.label, []).append(kind)
    for label, kinds in found.items():
        yield [label, str(place), *_cells(counts(kinds)), "", ""]


def _cells(kinds: Mapping[str, int]) -> list[str]:
    return [str(kinds[kind]) for kind in CLASSES]


def main() -> None:
    """Print the counts of the forget split as a table."""
    rows: list[list[str]] = []
    for place in map(Path, sys.argv[1:]):
        rows += of_a_benchmark(place) if (place / MANIFEST).is_file() else of_a_run(place)
    print(markdown_table(["method", "run", *CLASSES, "begun", "broken"], rows, 2))


if __name__ == "__main__":
    main()
