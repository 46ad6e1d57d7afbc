"""Asking a model every item of a benchmark, resumably."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from transformers import PreTrainedModel

from kvw.bench.recipe import EvaluationPart
from kvw.bench.scores import ItemScore, alternatives, score_likelihoods, score_preference, score_reply
from kvw.data import Example, prepare
from kvw.data.benchmarks import BenchmarkData, Item, Protocol, Task, examples
from kvw.errors import UserError
from kvw.evaluation.evaluation import unreadable_images
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import token_scores
from kvw.progress import Progress


@dataclass(frozen=True)
class Question:
    """An item with the prompt around it."""

    split: str
    task_name: str
    task: Task
    item: Item
    example: Example

    @property
    def place(self) -> tuple[str, str]:
        """Split and task."""
        return self.split, self.task_name


def questions(data: BenchmarkData, protocol: Protocol, wanted: EvaluationPart) -> list[Question]:
    """Everything that a model will be asked, split by split and task by task.

    Args:
        data: The benchmark.
        protocol: Zero-shot or with exemplars; tasks for which the benchmark defines no exemplars are asked zero-shot.
        wanted: Which tasks, how many items of each, and how long a reply may be.

    Raises:
        UserError: A task is not in the benchmark, or two items of a task have the same identifier.
    """
    places = wanted.tasks or [f"{split}/{task}" for split, found in data.splits.items() for task in found]
    asked = []
    for place in dict.fromkeys(places):
        split, _, name = place.partition("/")
        task = data.task(split, name)
        if wanted.max_new_tokens:
            task = replace(task, max_new_tokens=wanted.max_new_tokens)
        shown = examples(data, split, name, protocol if task.prompt.exemplar else Protocol())
        pairs = list(zip(task.items, shown, strict=True))[: wanted.at_most or None]
        seen: set[str] = set()
        for item, example in pairs:
            if example.identifier in seen:
                raise UserError(
                    f"Two items of {place} have the same identifier.",
                    found=example.identifier,
                    do="give every item an identifier of its own",
                )
            seen.add(example.identifier)
            asked.append(Question(split, name, task, item, example))
    return asked


def ask(
    model: PreTrainedModel,
    processor: Any,
    asked: Sequence[Question],
    journal: Journal,
    *,
    likelihoods: bool = True,
    progress: Progress | None = None,
) -> list[ItemScore]:
    """Score every question; what the journal has is not asked again.

    Args:
        model: A loaded model, with an edit attached or not.
        processor: Its processor.
        asked: From :func:`questions`.
        journal: Journal of this model only. It knows what was asked before and keeps what is asked now, batch by batch.
        likelihoods: Also score reference answers and their alternatives by probability.
        progress: Called with (done, total).

    Returns:
        One score for each question, in order.
    """
    scores: list[ItemScore] = []
    for _, several in groupby(asked, key=lambda question: question.place):
        group = list(several)
        told = _part(progress, len(scores), len(group), len(asked))
        scores += _ask_task(model, processor, group, journal, likelihoods, told)
    return scores


def _part(progress: Progress | None, before: int, count: int, total: int) -> Progress | None:
    """Report the work on some of the questions as a part of the whole."""
    if progress is None:
        return None
    report = progress
    return lambda done, of: report(before + count * done // max(1, of), total)


def _ask_task(
    model: PreTrainedModel,
    processor: Any,
    group: Sequence[Question],
    journal: Journal,
    likelihoods: bool,
    progress: Progress | None,
) -> Iterator[ItemScore]:
    """All questions of one task: with the same batches a resumed run gives the bits of an uninterrupted one."""
    errors = unreadable_images([question.example for question in group])
    readable = [question for row, question in enumerate(group) if row not in errors]
    answered = group[0].task.prompt.reply != "nothing"
    replies = iter(_replies(model, processor, readable, journal, progress) if answered else [])
    compared = likelihoods or not answered
    found = iter(_likelihoods(model, processor, readable, journal) if compared else [{} for _ in readable])
    for row, question in enumerate(group):
        preferences = {} if row in errors else next(found)
        reply = None if row in errors or not answered else next(replies)
        if answered:
            outcome, scores = score_reply(question.task, question.item, reply)
        else:
            outcome, scores = score_preference(preferences)
        yield ItemScore(
            split=question.split,
            task=question.task_name,
            identifier=question.example.identifier,
            subject=question.item.subject,
            modality=question.task.modality,
            pair=str(question.item.metadata.get("pair", "")),
            reply=reply,
            outcome=outcome,
            scores=scores | preferences,
            error=errors.get(row, ""),
        )


def _replies(
    model: PreTrainedModel,
    processor: Any,
    group: Sequence[Question],
    journal: Journal,
    progress: Progress | None,
) -> Sequence[str]:
    """What the model says to each question."""
    longest = group[0].task.max_new_tokens
    return generate_answers(
        model,
        processor,
        prepare([question.example for question in group], processor, model.config, new_tokens=longest),
        max_new_tokens=longest,
        journal=journal,
        progress=progress,
    )


def _likelihoods(
    model: PreTrainedModel, processor: Any, group: Sequence[Question], journal: Journal
) -> list[dict[str, float]]:
    """The scores of each question that follow from probabilities."""
    texts = [[question.example.answer, *alternatives(question.task, question.item)] for question in group]
    flat = [
        replace(question.example, answer=text)
        for question, several in zip(group, texts, strict=True)
        for text in several
    ]
    scores = iter(token_scores(model, processor, prepare(flat, processor, model.config), journal=journal))
    rows = []
    for question, several in zip(group, texts, strict=True):
        answer, *others = [next(scores) for _ in several]
        rows.append(score_likelihoods(question.item, answer, others))
    return rows
