"""``samples.jsonl``: every question with the answers of all models, to read and to count again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kvw.errors import UserError
from kvw.evaluation.records import Evaluation

SHARED = ("identifier", "split", "question", "reference")


@dataclass(frozen=True)
class Reply:
    """What one model answered.

    Args:
        text: The answer; empty if the example failed.
        kind: See :data:`kvw.runs.answer_classes.AnswerClass`.
        right: Whether the answer holds the reference: by its kind, or word for word where that is not known.
        probability: Probability of the reference answer; None if it was not measured.
    """

    text: str
    kind: str
    right: bool
    probability: float | None


@dataclass(frozen=True)
class Row:
    """One line: a question, and what each model answered.

    Args:
        split: The split that it was asked for.
        question, reference: What was asked, and what is right.
        replies: By the name of the model: ``original``, ``unlearned``.
        thumbnail: A small picture as a data URI; empty without.
    """

    split: str
    question: str
    reference: str
    replies: Mapping[str, Reply]
    thumbnail: str = ""


def sample_lines(
    evaluations: Mapping[str, Evaluation],
    kinds: Mapping[str, Sequence[str]] | None = None,
    thumbnails: Mapping[int, str] | None = None,
) -> Iterator[str]:
    """One JSON line for each question: what was asked, then under each model's name its answer and scores.

    Args:
        evaluations: Evaluations of the same questions, by the name of the model.
        kinds: The kind of every answer, by the name of the model; None if they were not classed.
        thumbnails: Small pictures as data URIs, by the number of the line from 0.
    """
    for place, records in enumerate(zip(*(found.records for found in evaluations.values()), strict=True)):
        row = records[0].model_dump(include=set(SHARED))
        if thumbnails and place in thumbnails:
            row["thumbnail"] = thumbnails[place]
        for name, record in zip(evaluations, records, strict=True):
            row[name] = record.model_dump(exclude={*SHARED, *(() if record.error else ("error",))})
            if kinds is not None:
                row[name]["kind"] = kinds[name][place]
        yield json.dumps(row, ensure_ascii=False) + "\n"


def read_rows(lines: Iterable[str], where: str) -> list[Row]:
    """Read what :func:`sample_lines` wrote, in this version or an earlier one.

    Raises:
        UserError: A line is no such line; ``where`` names the file.
    """
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            replies = {name: _reply(part) for name, part in row.items() if isinstance(part, dict)}
            rows.append(Row(row["split"], row["question"], row["reference"], replies, row.get("thumbnail", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{where}: line {number} is no line of samples.",
                found=f"{type(error).__name__}: {error}",
                do="take the file as kvw erase wrote it, or make the run again",
            ) from error
    return rows


def _reply(part: Mapping[str, object]) -> Reply:
    text, kind, probability = part["prediction"], part.get("kind", ""), part["probability"]
    assert isinstance(text, str)
    assert isinstance(kind, str)
    right = kind == "correct" if kind else bool(part["exact"]) or bool(part["substring"])
    return Reply(text, kind, right, float(probability) if isinstance(probability, int | float) else None)
