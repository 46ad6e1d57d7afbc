"""What a request may say, and how it is told what it may not."""

from __future__ import annotations

import json

import pytest

from kvw.serving.chat_request import WITHOUT_EFFECT, read_request
from kvw.serving.refusals import Refusal

PLAIN = {"model": "m", "messages": [{"role": "user", "content": "Q"}]}


def read(**more):
    return read_request(json.dumps({**PLAIN, **more}).encode())


def refused(content):
    with pytest.raises(Refusal) as found:
        read_request(content if isinstance(content, bytes) else json.dumps(content).encode())
    assert found.value.status == 400
    return found.value


def test_defaults_are_greedy_and_leave_the_length_open():
    found = read()
    assert (found.temperature, found.top_p, found.seed, found.max_new_tokens, found.stops) == (0, 1, None, None, ())
    assert (found.stream, found.stream_options.include_usage) == (False, False)


def test_every_parameter_is_read():
    found = read(temperature=1, top_p=0.5, seed=3, max_tokens=7, stop="x", stream=True, user="me")
    assert (found.temperature, found.top_p, found.seed, found.max_new_tokens, found.stops) == (1, 0.5, 3, 7, ("x",))
    assert found.stream
    found = read(max_completion_tokens=8, stop=["a", "b"], stream_options={"include_usage": True})
    assert (found.max_new_tokens, found.stops, found.stream_options.include_usage) == (8, ("a", "b"), True)


def test_what_asks_for_nothing_is_as_if_it_were_absent():
    names = [name for name in type(read()).model_fields if name not in PLAIN]
    assert read(**dict.fromkeys([*names, *WITHOUT_EFFECT, "anything"])) == read()
    assert read(**WITHOUT_EFFECT) == read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 2),
        ("frequency_penalty", 0.1),
        ("presence_penalty", -1),
        ("logit_bias", {"1": 5}),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function"}]),
        ("modalities", ["audio"]),
        ("reasoning_effort", "low"),
        ("top_k", 5),
    ],
)
def test_what_is_not_supported_is_refused(name, value):
    refusal = refused({**PLAIN, name: value})
    assert (refusal.parameter, refusal.code) == (name, "unsupported_parameter")
    assert refusal.body() == {
        "error": {
            "message": f"'{name}' is not supported by this server.",
            "type": "invalid_request_error",
            "param": name,
            "code": "unsupported_parameter",
        }
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_completion_tokens", -1),
        ("seed", -1),
        ("seed", 2**63),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", list("abcde")),
        ("stream", "yes"),
        ("stream_options", {"more": 1}),
        ("messages", []),
        ("messages", "Q"),
        ("messages", ["Q"]),
        ("messages", [{"role": "tool", "content": "Q"}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": [{"type": "input_audio"}]}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "", "detail": "low"}}]}]),
        ("messages", [{"role": "user", "content": "Q", "name": "Ann"}]),
        ("model", 3),
        ("user", 3),
    ],
)
def test_values_that_make_no_sense(name, value):
    assert refused({**PLAIN, name: value}).parameter.split(".")[0] == name


def test_bodies_that_are_no_request():
    assert "not JSON" in refused(b"{").message
    assert "not JSON" in refused(b"\xff").message
    assert "not JSON" in refused(b"[" * 100_000).message
    assert "not a JSON object" in refused(b"[]").message
    assert refused({"messages": PLAIN["messages"]}).parameter == "model"
    assert "they are the same" in refused({**PLAIN, "max_tokens": 1, "max_completion_tokens": 2}).message
