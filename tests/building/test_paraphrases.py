"""Paraphrases: which lines of a reply are taken, and what a model is told."""

from __future__ import annotations

import pytest

from kvw.building.paraphrases import LONGEST, WANTED, paraphrased
from kvw.building.phrasings import phrasings
from kvw.errors import UserError

WORDS = phrasings("en")


def taken(reply):
    words, _ = paraphrased(WORDS, ["job"], lambda prompts: [reply])
    assert words.of("job").questions[: len(WORDS.fact.questions)] == WORDS.fact.questions
    return list(words.of("job").questions[len(WORDS.fact.questions) :])


@pytest.mark.parametrize(
    ("line", "question"),
    [
        ("How does {name} earn a living?", "How does {name} earn a living?"),
        ("3. What does {name} do?", "What does {name} do?"),
        (" (2) What does {name} do?", "What does {name} do?"),
        ('- "What does {name} do?"', "What does {name} do?"),
        ("* \u201cWhat does {name} do?\u201d ", "What does {name} do?"),
    ],
)
def test_lists_and_quotation_marks_are_taken_off(line, question):
    assert taken(f"Here they are:\n{line}\n") == [question]


@pytest.mark.parametrize(
    "line",
    [
        "What does Ada do?",
        "What do {name} and {name} do?",
        "What is the {fact} of {name}?",
        "what is the JOB of {name}?",
        "{name} " + "x" * LONGEST,
        "",
    ],
)
def test_what_is_no_new_question_about_one_name_is_left_out(line):
    assert taken(f"{line}\nWhat does {{name}} do?\nWhat does {{name}} do?") == ["What does {name} do?"]


def test_as_many_are_taken_as_were_asked_for():
    assert len(taken("\n".join(f"Way {number} to ask {{name}}?" for number in range(WANTED + 3)))) == WANTED


def test_each_fact_is_asked_for_by_its_column_and_counted():
    told = []
    words, counts = paraphrased(WORDS, ["job", "town"], lambda prompts: told.extend(prompts) or ["And {name}?", ""])
    assert [prompt.splitlines()[-1] for prompt in told] == [f"What is the {x} of {{name}}?" for x in ("job", "town")]
    assert all(f"Write {WANTED} other ways" in prompt and "Keep {name} as it is" in prompt for prompt in told)
    assert counts == {"job": 1, "town": 0}
    assert words.of("town").questions == WORDS.fact.questions
    assert words.of("job").answer == WORDS.fact.answer


def test_a_reply_without_any_is_told():
    with pytest.raises(UserError, match="no paraphrase that can be used"):
        paraphrased(WORDS, ["job"], lambda prompts: ["No."])
