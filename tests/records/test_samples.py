"""``samples.jsonl`` is read as it was written."""

from __future__ import annotations

import pytest

from kvw.data import Example
from kvw.errors import UserError
from kvw.evaluation.records import Reply, collect
from kvw.records.samples import read_rows, sample_lines

EXAMPLES = {"forget": [Example("What does Ann do?", "smith")], "retain": [Example("What does Cy do?", "tailor")]}
EVALUATIONS = {
    name: collect(EXAMPLES, [Reply(text, 0.5) for text in texts])
    for name, texts in {"original": ("smith", "a tailor"), "unlearned": ("baker", "a tailor")}.items()
}


def test_questions_answers_and_kinds_come_back() -> None:
    kinds = {"original": ["correct", "correct"], "unlearned": ["other", "correct"]}
    forget, retain = read_rows(sample_lines(EVALUATIONS, kinds, {1: "data:,x"}), "samples")
    assert (forget.split, forget.question, forget.reference) == ("forget", "What does Ann do?", "smith")
    assert {name: (reply.text, reply.kind, reply.right) for name, reply in forget.replies.items()} == {
        "original": ("smith", "correct", True),
        "unlearned": ("baker", "other", False),
    }
    assert (forget.thumbnail, retain.thumbnail) == ("", "data:,x")


def test_a_file_without_kinds_is_judged_word_for_word() -> None:
    rows = read_rows(sample_lines(EVALUATIONS), "samples")
    assert [row.replies["unlearned"].right for row in rows] == [False, True]
    assert {row.replies["unlearned"].kind for row in rows} == {""}


def test_a_line_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match="line 2"):
        read_rows([*list(sample_lines(EVALUATIONS))[:1], "{}"], "samples")
