"""``report.html`` of a run: written by ``kvw erase``, and made again by ``kvw report``."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kvw.data import Example
from kvw.data.images import load_image
from kvw.errors import UserError
from kvw.evaluation.records import Evaluation
from kvw.files import write_text
from kvw.mark import mark_also
from kvw.pages.audit_page import audit_page
from kvw.pages.cases import cases
from kvw.pages.run_page import run_page
from kvw.progress import Reporter
from kvw.records.audit import AuditRecord
from kvw.records.run import AnswersPart, RunRecord
from kvw.records.samples import read_rows, sample_lines
from kvw.retain.said import Said
from kvw.runs.answer_classes import AnswerClass, Classifier, counts
from kvw.runs.first_checks import check_report_folder
from kvw.runs.request import DataSets
from kvw.runs.writing import RECORD, SAMPLES

REPORT = "report.html"
AUDIT_RECORD, AUDIT_PAGE = "audit.json", "audit.html"
Record = TypeVar("Record", RunRecord, AuditRecord)
THUMBNAIL = 112
"""Longer side of a small picture, in pixels."""


@dataclass(frozen=True)
class Classed:
    """The answers of both models, and what kind each is.

    Args:
        evaluations: ``original`` and ``unlearned``, of the same examples.
        kinds: Kinds of every record, in order, by model.
    """

    evaluations: Mapping[str, Evaluation]
    kinds: Mapping[str, Sequence[AnswerClass]]

    @classmethod
    def of(cls, data: DataSets, evaluations: Mapping[str, Evaluation]) -> Classed:
        """Class every answer; whose answers may be somebody else's is known from all files of the request."""
        classifier = Classifier(example for examples in data.read.values() for example in examples)
        kinds = {
            name: [
                classifier.kind(one.question, example.subject_key, one.reference, one.prediction)
                if one.error is None
                else "none"
                for one, example in zip(found.records, data.all_scored, strict=True)
            ]
            for name, found in evaluations.items()
        }
        return cls(evaluations, kinds)

    def part(self, split: str) -> AnswersPart:
        """What the record says of a split."""
        places = [place for place, one in enumerate(self.evaluations["original"].records) if one.split == split]
        before, after = ([self.kinds[name][place] for place in places] for name in ("original", "unlearned"))
        pairs = list(zip(before, after, strict=True))
        replies = [self.evaluations["unlearned"].records[place] for place in places]
        said = Said((one.question, one.reference) for one in replies)
        return AnswersPart(
            original=counts(before),
            unlearned=counts(after),
            lost=sum(was == "correct" != now for was, now in pairs),
            gained=sum(was != "correct" == now for was, now in pairs),
            begun=sum(
                was == "correct" != now and said.begun(one.prediction, one.reference)
                for (was, now), one in zip(pairs, replies, strict=True)
            ),
            broken=sum(was != "gibberish" == now for was, now in pairs),
        )

    def tell_broken(self, reporter: Reporter) -> None:
        """Warn of forget replies that are no language any more; the language check asks other questions."""
        part = self.part("forget")
        if part.broken:
            reporter.warn(
                f"{part.broken} of {sum(part.unlearned.values())} replies to forget questions are gibberish or end in "
                "a loop, and were not before: whoever asks notices that something was removed."
            )

    def lines(self, record: RunRecord, examples: Sequence[Example]) -> str:
        """What ``samples.jsonl`` holds: with a small picture where the report shows one."""
        rows = read_rows(sample_lines(self.evaluations, self.kinds), SAMPLES)
        shown = {id(row) for case in cases(record, rows) for row in case.rows}
        pictures = {
            place: thumbnail(example)
            for place, (row, example) in enumerate(zip(rows, examples, strict=True))
            if id(row) in shown and example.images
        }
        return "".join(sample_lines(self.evaluations, self.kinds, pictures))


def thumbnail(example: Example) -> str:
    """The first picture of an example, small, as a data URI; empty if it cannot be read."""
    try:
        image = load_image(example.images[0], example.identifier)
    except UserError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_report(folder: Path, record: RunRecord, *, show_examples: bool) -> Path:
    """Write ``report.html`` into the folder of a run, from its record and its samples.

    Raises:
        UserError: The samples cannot be read.
    """
    samples = folder / SAMPLES
    lines = samples.read_text(encoding="utf-8").splitlines() if samples.is_file() else []
    page = run_page(record, read_rows(lines, str(samples)), show_examples=show_examples)
    write_text(folder / REPORT, page)
    return folder / REPORT


def report(folder: Path, *, show_examples: bool = False) -> Path:
    """``kvw report``: make the page of a finished run or audit again.

    Args:
        folder: What ``kvw erase --out`` or ``kvw audit --out`` wrote.
        show_examples: Whether questions, answers and photos are shown.

    Returns:
        The file.

    Raises:
        UserError: It is no folder of a run or an audit, or its record or samples cannot be read.
    """
    check_report_folder(folder)
    if (folder / AUDIT_RECORD).is_file():
        audit = _read(folder / AUDIT_RECORD, AuditRecord)
        write_text(folder / AUDIT_PAGE, audit_page(audit, show_examples=show_examples))
        return folder / AUDIT_PAGE
    written = write_report(folder, _read(folder / RECORD, RunRecord), show_examples=show_examples)
    mark_also(folder, REPORT)
    return written


def _read(file: Path, kind: type[Record]) -> Record:
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{file} is no record of this version.",
            found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            do="make it again, or use the version of kvw that wrote it",
        ) from error
