"""Whatever a body holds, the answer is one or a refusal in the protocol's form, and never a failure of the server."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.serving.running import Toy

from kvw.serving.app import build_app
from kvw.serving.chat_request import WITHOUT_EFFECT, ChatRequest
from kvw.serving.engine import Engine
from kvw.serving.messages import Message
from kvw.serving.names import Names
from kvw.serving.refusals import Refusal

pytestmark = pytest.mark.thorough

BOUNDED = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["Who?", "alice", "none", "bob+alice", "\ud800", "\x00", "<image>", "<|im_end|>", "data:image/png;base64,AA=="]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, 1, 2, -1, 1e-300, 5e-324, 1e-6, 1e308, 10**400, True, 0.5, 16]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
PARTS = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url", "refusal", "input_text"]) | ANYTHING},
        optional={
            "text": SCALARS,
            "refusal": SCALARS,
            "image_url": SCALARS | st.fixed_dictionaries({"url": TEXTS}, optional={"detail": SCALARS}),
            "cache_control": ANYTHING,
        },
    ),
)
MESSAGES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | SCALARS},
        optional={
            "content": TEXTS | SCALARS | st.lists(PARTS, max_size=3),
            **{name: ANYTHING for name in Message.model_fields if name not in ("role", "content")},
            "refusal": SCALARS,
            "tool_calls": ANYTHING,
        },
    ),
)
PLAIN = {"model": "none", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 2}
FIELDS = [*ChatRequest.model_fields, *WITHOUT_EFFECT, "more"]
CHANGES = st.dictionaries(st.sampled_from(FIELDS), NUMBERS | ANYTHING, max_size=3)


@cache
def client():
    toy = Toy()
    engine = Engine(toy.model, toy.processor, toy.edits, longest_answer=16)
    app = build_app(engine, Names("toy:vanilla", list(toy.edits), allow_plain=True))
    return TestClient(app, raise_server_exceptions=True)


def assert_answered(content):
    reply = client().post("/v1/chat/completions", content=content)
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        assert reply.text.endswith("data: [DONE]\n\n")
        return 200
    body = reply.json()
    if reply.status_code == 200:
        assert body["object"] == "chat.completion"
        assert isinstance(body["choices"][0]["message"]["content"], str)
    else:
        assert 400 <= reply.status_code < 500, body
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["type"] == "invalid_request_error"
        assert 0 < len(body["error"]["message"]) <= 3000
    return reply.status_code


def test_a_plain_request_is_answered():
    assert assert_answered(json.dumps(PLAIN)) == 200


@BOUNDED
@given(CHANGES)
@example({"temperature": 1e-300})
@example({"temperature": 1e-300, "stream": True})
@example({"temperature": 2, "top_p": 5e-324})
@example({"model": "\ud800"})
@example({"\ud800": 1})
@example({"max_tokens": 10**4000})
@example({"stop": ["\ud800"]})
@example({"stop": ""})
@example({"messages": []})
@example({"n": 0})
@example({"logprobs": True, "top_logprobs": 5})
@example({"tools": [{}]})
@example({"stream_options": []})
@example({"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}})
def test_any_field_may_hold_anything(changes):
    assert_answered(json.dumps({**PLAIN, **changes}))


@BOUNDED
@given(st.lists(MESSAGES, max_size=3), st.booleans())
@example([{"role": "user", "content": [{"type": []}]}], False)
@example([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,é"}}]}], False)
@example([{"role": "user", "content": ""}], True)
@example([{"role": "assistant", "content": None, "refusal": 3}], False)
def test_messages_may_be_anything(messages, stream):
    assert_answered(json.dumps({**PLAIN, "messages": messages, "stream": stream}))


@BOUNDED
@given(
    st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode), ANYTHING.map(json.dumps).map(str.encode))
)
@example(b"")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(json.dumps(PLAIN).encode("utf-16"))
@example(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode())
def test_bodies_may_be_anything(content):
    assert_answered(content)


def test_a_failure_of_the_server_would_be_found(monkeypatch):
    """What the other tests look for exists."""

    def fail(content):
        raise ZeroDivisionError

    monkeypatch.setattr("kvw.serving.app.read_request", fail)
    with pytest.raises(ZeroDivisionError):
        assert_answered(json.dumps(PLAIN))
    reply = TestClient(client().app, raise_server_exceptions=False).post("/v1/chat/completions", content=b"{}")
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
    assert reply.json() == Refusal(500, "The server failed; its log says why.").body()
