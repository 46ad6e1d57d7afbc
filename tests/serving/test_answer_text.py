"""Text that comes piece by piece is the text that comes at once."""

from __future__ import annotations

import pytest
from tests.fixtures import built

from kvw.serving.answer_text import AnswerText


@pytest.fixture(scope="module")
def tokenizer():
    return built("llava")[1].tokenizer


def pieces(tokenizer, text, *stops):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer, found = AnswerText(tokenizer, stops), []
    for count in range(1, len(ids) + 1):
        found.append(answer.take(ids[:count]))
        if answer.stopped:
            break
    return [*found, answer.finish()], answer.stopped


@pytest.mark.parametrize("text", ["born in Kuwait City.", "日本 and 🦎 and ñ", " leading", "🦎"])
def test_pieces_are_the_text(tokenizer, text):
    found, stopped = pieces(tokenizer, text)
    assert "".join(found) == text
    assert not stopped
    assert sum(map(bool, found)) > 1 or len(text) == 1
    assert "\ufffd" not in "".join(found)


def test_characters_that_are_cut_off_come_at_the_end(tokenizer):
    ids = tokenizer("a🦎", add_special_tokens=False)["input_ids"][:-1]
    answer = AnswerText(tokenizer)
    assert [answer.take(ids[:count]) for count in range(1, len(ids) + 1)] == ["a", *[""] * (len(ids) - 1)]
    assert answer.finish() == tokenizer.decode(ids)[1:] == "\ufffd"
    assert answer.finish() == ""


def test_special_tokens_are_not_text(tokenizer):
    answer = AnswerText(tokenizer)
    ids = tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert answer.take([*ids, tokenizer.eos_token_id]) == "yes"


@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        ("one, two, three", [","], "one"),
        ("one, two, three", ["two", "one, t"], ""),
        ("one, two, three", ["three!", "wo, th"], "one, t"),
        ("one, two, thr", ["three"], None),
        ("aaab", ["aab"], "a"),
        ("one\n\ntwo", ["\n\n"], "one"),
    ],
)
def test_a_stop_text_ends_the_answer_and_none_of_it_gets_out(tokenizer, text, stops, wanted):
    found, stopped = pieces(tokenizer, text, *stops)
    assert stopped == (wanted is not None)
    assert "".join(found) == (text if wanted is None else wanted)
