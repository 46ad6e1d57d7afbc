"""Answers to choose from: the right one, and those that others have to the same kind of question."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from kvw.data import Example
from kvw.data.benchmarks.choices import order_key
from kvw.folding import collapsed
from kvw.retain.gaps import around, around_subject, fill
from kvw.runs.audit.questions import Questions

WRONG = 3
"""Most wrong answers to choose from."""


def options_of(example: Example, questions: Questions) -> list[Example]:
    """The question with each answer to choose from, the right one first.

    Wrong ones are answers to the same question about others (or to any question, if there is none), with the name of
    the subject in the place of theirs. They do not say what the right one says.

    Returns:
        Only the right one if there is no wrong one.
    """
    others = [one for one in (*questions.others, *questions.examples) if one.subject_key != example.subject_key]
    same = [one for one in others if _kind(one) == _kind(example)]
    options: dict[str, str] = {}
    for other in sorted(same or others, key=lambda one: order_key(0, f"{example.identifier} {one.identifier}")):
        answer = _about(other, example)
        if not questions.judge.says(answer, example.answer) and collapsed(answer) != collapsed(example.answer):
            options.setdefault(collapsed(answer), answer)
    return [example, *(replace(example, answer=answer) for answer in list(options.values())[:WRONG])]


def _kind(example: Example) -> Hashable:
    """What is asked, whoever it is asked about."""
    between = around_subject(example)
    return tuple(map(collapsed, between)) if between else collapsed(example.question)


def _about(other: Example, example: Example) -> str:
    parts = around(other.answer, other.subject or "")
    return fill(parts, example.subject) if parts and example.subject else other.answer
