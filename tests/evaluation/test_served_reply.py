"""What replies of servers hold, those of models that think first among them."""

from __future__ import annotations

import json

import pytest
from tests.servers import completion

from kvw.evaluation.records import Reply
from kvw.evaluation.served_reply import Malformed, choice_of, reply_of


def read(text, reason="stop", thinks=False, **more):
    return reply_of(choice_of(json.dumps(completion(text, reason, **more))), thinks=thinks)


@pytest.mark.parametrize(
    "text",
    [
        "a florist",
        "<think>Okay.</think>\n\na florist",
        "\n<think>\n\n</think>\n\na florist",
        "Okay, the user asks.\n</think>\n\na florist",
        "<think>One.</think> <think>Two.</think>a florist",
        "[THINK]Okay[/THINK]a florist",
        "◁think▷Okay◁/think▷a florist",
        "<|channel|>analysis<|message|>Okay<|end|><|start|>assistant<|channel|>final<|message|>a florist",
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Okay"}]}, {"type": "text", "text": "a florist"}],
    ],
)
@pytest.mark.parametrize("reason", ["stop", "length", None])
def test_thoughts_are_no_part_of_the_answer(text, reason):
    found = read(text, reason, thinks=text != "a florist")
    assert found == Reply("a florist")
    assert found.at_limit == (reason == "length")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_in_a_field_of_their_own_are_left_out(field):
    assert read("a florist", **{field: "Okay"}, thinks=True) == Reply("a florist")
    assert read("a flor", "length", **{field: "Okay"}, thinks=True) == Reply("a flor")
    assert read("a flor", "length", **{field: ""}, thinks=True).cut_off
    for said in (None, "", " \n"):
        assert read(said, "length", **{field: "Okay"}).cut_off
        with pytest.raises(Malformed):
            read(said, "stop", **{field: "Okay"})


@pytest.mark.parametrize(
    ("text", "reason", "thinks"),
    [
        (None, "length", False),
        ("", "length", False),
        (" \n", "max_tokens", False),
        ("<think>Okay", "length", False),
        ("<think>Okay", "stop", False),
        ("\n[THINK]Okay", "length", False),
        ("<think></think>\n\n", "length", False),
        ("Okay, the user asks", "length", True),
    ],
)
def test_what_ends_inside_a_thought_is_no_answer(text, reason, thinks):
    found = read(text, reason, thinks)
    assert (found.text, found.cut_off) == ("", True)
    assert "cut off" in found.error


def test_answers_of_models_that_do_not_think():
    assert read("a florist", "length").at_limit
    assert read("") == Reply("")
    assert read("I <think> so") == Reply("I <think> so")
    assert read(None, refusal="I may not say. ") == Reply("I may not say.")


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        (None, {}, "no text"),
        (3, {}, "no text"),
        ([], {}, "no text"),
        ("<think>Okay</think>", {}, "a thought and no answer"),
        ("a flor", {"reason": "content_filter"}, "content filter"),
        (None, {"tool_calls": [{}], "reason": "tool_calls"}, "no text"),
    ],
)
def test_what_is_no_answer(text, more, words):
    with pytest.raises(Malformed, match=words):
        read(text, **more)


@pytest.mark.parametrize("content", ["", "<html>", "{}", "[]", '{"choices": [{"message": 3}]}', "[" * 100_000])
def test_what_is_no_reply(content):
    with pytest.raises(Malformed, match="no answer in the reply"):
        choice_of(content)
