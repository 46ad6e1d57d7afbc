"""Asking a model every item of a benchmark, resumably."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from kvw.bench.journal import Journal
from kvw.bench.recipe import EvaluationPart
from kvw.bench.scores import ItemScore, alternatives, score_likelihoods, score_preference, score_reply
from kvw.data import Example, prepare
from kvw.data.benchmarks import BenchmarkData, Item, Protocol, Task, examples
from kvw.evaluation import generate_answers, token_scores
from kvw.evaluation.evaluation import unreadable_images
from kvw.progress import Progress

ITEMS_AT_A_TIME = 64
"""Items between two writes of the journal. Neither answers nor probabilities depend on what shares a batch."""


@dataclass(frozen=True)
class Question:
    """An item with the prompt around it."""

    split: str
    task_name: str
    task: Task
    item: Item
    example: Example


def questions(data: BenchmarkData, protocol: Protocol, wanted: EvaluationPart) -> list[Question]:
    """Everything that a model will be asked, split by split and task by task.

    Args:
        data: The benchmark.
        protocol: Zero-shot or with exemplars; tasks for which the benchmark defines no exemplars are asked zero-shot.
        wanted: Which tasks, how many items of each, and how long a reply may be.

    Raises:
        UserError: A task is not in the benchmark.
    """
    places = wanted.tasks or [f"{split}/{task}" for split, found in data.splits.items() for task in found]
    asked = []
    for place in places:
        split, _, name = place.partition("/")
        task = data.task(split, name)
        if wanted.max_new_tokens:
            task = replace(task, max_new_tokens=wanted.max_new_tokens)
        shown = examples(data, split, name, protocol if task.prompt.exemplar else Protocol())
        pairs = list(zip(task.items, shown, strict=True))
        asked += [Question(split, name, task, item, example) for item, example in pairs[: wanted.at_most or None]]
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
    """Score every question; those in the journal are not asked again.

    Args:
        model: A loaded model, with an edit attached or not.
        processor: Its processor.
        asked: From :func:`questions`.
        journal: Knows what was asked before and keeps what is asked now.
        likelihoods: Also score reference answers and their alternatives by probability.
        progress: Called with (done, total).

    Returns:
        One score for each question, in order.
    """
    left = [question for question in asked if not journal.has(_place(question))]
    done = len(asked) - len(left)
    for group in _groups(left):
        for scores in _ask_group(model, processor, group, likelihoods):
            journal.add(scores)
        journal.flush()
        done += len(group)
        if progress:
            progress(done, len(asked))
    return [journal.get(_place(question)) for question in asked]


def _place(question: Question) -> tuple[str, str, str]:
    return question.split, question.task_name, question.example.identifier


def _groups(asked: Sequence[Question]) -> Iterator[list[Question]]:
    """Questions of one task each, a few at a time."""
    start = 0
    while start < len(asked):
        first, end = asked[start], start
        while (
            end < len(asked)
            and end - start < ITEMS_AT_A_TIME
            and (asked[end].split, asked[end].task_name) == (first.split, first.task_name)
        ):
            end += 1
        yield list(asked[start:end])
        start = end


def _ask_group(
    model: PreTrainedModel, processor: Any, group: Sequence[Question], likelihoods: bool
) -> Iterator[ItemScore]:
    prepared = prepare([question.example for question in group], processor)
    errors = unreadable_images([question.example for question in group])
    readable = [row for row in range(len(group)) if row not in errors]
    task, replies = group[0].task, dict[int, str]()
    answered = task.prompt.reply != "nothing"
    if answered:
        shown = [prepared[row] for row in readable]
        answers = generate_answers(model, processor, shown, max_new_tokens=task.max_new_tokens)
        replies = dict(zip(readable, answers, strict=True))
    compared = likelihoods or not answered
    found = _likelihoods(model, processor, [group[row] for row in readable]) if compared else {}
    for row, question in enumerate(group):
        reply = replies.get(row)
        if answered:
            outcome, scores = score_reply(question.task, question.item, reply)
        else:
            outcome, scores = score_preference(found.get(question.example.identifier))
        yield ItemScore(
            split=question.split,
            task=question.task_name,
            identifier=question.example.identifier,
            subject=question.item.subject,
            modality=question.task.modality,
            reply=reply,
            outcome=outcome,
            scores=scores | found.get(question.example.identifier, {}),
            error=errors.get(row, ""),
        )


def _likelihoods(model: PreTrainedModel, processor: Any, group: Sequence[Question]) -> dict[str, dict[str, float]]:
    texts = [[question.example.answer, *alternatives(question.task, question.item)] for question in group]
    flat = [
        replace(question.example, answer=text)
        for question, several in zip(group, texts, strict=True)
        for text in several
    ]
    scores = iter(token_scores(model, processor, prepare(flat, processor)))
    found = {}
    for question, several in zip(group, texts, strict=True):
        answer, *others = [next(scores) for _ in several]
        found[question.example.identifier] = score_likelihoods(question.item, answer, others)
    return found
