"""Which of the questions that are asked before and after had a part in making the edit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kvw.data import Example
from kvw.records.run import SeenPart
from kvw.runs.seen import seen_part


def about(subject: str | None, question: str = "What is it?", answer: str = "A") -> Example:
    return Example(question, answer, metadata={} if subject is None else {"subject": subject})


PERU, CHILE, FRANCE = about("Peru", "Capital of Peru?"), about("Chile", "Capital of Chile?"), about("France")
NEIGHBOUR, HELD_OUT = about("Bolivia", "Capital of Bolivia?"), about("Spain", "Capital of Spain?")


def counted(*asked: Example, statistics: object = None) -> SeenPart | None:
    data: Any = SimpleNamespace(retain_statistics=statistics, forget=[PERU], retain=[CHILE])
    material: Any = SimpleNamespace(
        forget=[PERU], retain=[CHILE, NEIGHBOUR], judged={"retain": [CHILE], "held-out facts": [HELD_OUT]}
    )
    return seen_part(asked, data, material)


def test_examples_are_used_or_judge_or_are_new() -> None:
    assert counted(PERU, CHILE, NEIGHBOUR, HELD_OUT, FRANCE) == SeenPart(
        used=3, judged=1, about_forgotten=1, new_subjects=1
    )


def test_another_question_about_the_forgotten_is_about_them_and_was_not_used() -> None:
    assert counted(about("PERU ", "Which city?")) == SeenPart(used=0, judged=0, about_forgotten=1, new_subjects=0)


def test_a_subject_that_a_question_of_another_source_names_is_not_new() -> None:
    named = about("Bolivia's neighbour", "Where is Spain?")
    assert counted(about("Capital of Bolivia")) == SeenPart(used=0, judged=0, about_forgotten=0, new_subjects=0)
    assert counted(named) == SeenPart(used=0, judged=0, about_forgotten=0, new_subjects=1)


def test_without_subjects_nothing_is_new_and_the_forgotten_are_known_by_themselves() -> None:
    assert counted(about(None)) == SeenPart(used=0, judged=0, about_forgotten=0, new_subjects=0)


def test_statistics_do_not_say_what_they_were_measured_on() -> None:
    assert counted(PERU, statistics="some") is None
