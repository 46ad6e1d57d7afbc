"""What a request may say, and how it is told what it may not."""

from __future__ import annotations

import json

import pytest

from kvw.serving import limits
from kvw.serving.chat_request import WITHOUT_EFFECT, ChatRequest, read_request
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
        ("store", True),
        ("tool_choice", "required"),
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
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "", "detail": "1"}}]}]),
        ("messages", [{"role": "user", "content": "Q", "name": 3}]),
        ("model", 3),
        ("user", 3),
    ],
)
def test_values_that_make_no_sense(name, value):
    assert refused({**PLAIN, name: value}).parameter.split(".")[0] == name


ADDRESS = "data:image/png;base64,AA=="
SHOWN = {"type": "image_url", "image_url": {"url": ADDRESS}}
SAID = {"type": "text", "text": "Q"}


def of_user(*parts):
    return read(messages=[{"role": "user", "content": list(parts)}]).messages[0].content


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": ADDRESS, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": ADDRESS, "detail": None}},
        {"type": "image_url", "image_url": ADDRESS},
        {**SHOWN, "text": None},
        {**SHOWN, "cache_control": {"type": "ephemeral"}},
    ],
)
def test_images_are_read_in_every_form_that_clients_send(part):
    (found,) = of_user(part)
    assert found.image_url.url == ADDRESS


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({**SAID, "cache_control": {"type": "ephemeral"}}, "Q"),
        ({**SAID, "image_url": None}, "Q"),
        ({"type": "text", "text": None}, None),
    ],
)
def test_texts_are_read_in_every_form_that_clients_send(part, text):
    assert of_user(part)[0].text == text


def test_an_answer_comes_back_as_clients_send_it():
    for more in ({}, {"name": "Ann"}, {"refusal": None, "tool_calls": [], "annotations": [], "audio": None}):
        found = read(messages=[{"role": "assistant", "content": "A", **more}, *PLAIN["messages"]]).messages[0]
        assert [part.text for part in found.content] == ["A"]
    refused = read(messages=[{"role": "assistant", "content": None, "refusal": "No."}, *PLAIN["messages"]]).messages[0]
    assert [part.refusal for part in refused.content] == ["No."]


@pytest.mark.parametrize(
    ("messages", "place", "words"),
    [
        ([{"role": "user", "content": [{"type": "input_text", "text": "Q"}]}], "0.content.0", "'input_text'"),
        ([{"role": "user", "content": [SAID, {"type": "text"}]}], "0.content.1.text", "Field required"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "0.content.0.text", "a valid string"),
        ([{"role": "user", "content": [SAID, {"type": "image_url"}]}], "0.content.1.image_url", "Field required"),
        ([{"role": "user", "content": [{**SHOWN, "image_url": {}}]}], "0.content.0.image_url.url", "Field required"),
        ([{"role": "user", "content": [{**SHOWN, "image_url": 3}]}], "0.content.0.image_url", "dictionary"),
        ([{"role": "user", "content": [{**SAID, "more": 1}]}], "0.content.0.more", "not supported"),
        ([{"role": "user", "content": None}], "0.content", "a string or a list of parts"),
        ([{"role": "user", "content": 3}], "0.content", "a string or a list of parts"),
        ([{"role": "user", "content": []}], "0.content", "at least 1"),
        ([{"role": "user", "content": ["Q"]}], "0.content.0", "dictionary"),
        ([*PLAIN["messages"], {"role": "tool", "content": "Q"}], "1.role", "'user' or 'assistant'"),
        ([{"role": "assistant", "content": None}], "0.content", "a string or a list of parts"),
        ([{"role": "assistant", "content": "A", "tool_calls": [{}]}], "0.tool_calls", "not supported"),
        ([1, 1], "0", "dictionary"),
    ],
)
def test_errors_in_a_list_name_the_fault_and_its_place(messages, place, words):
    refusal = refused({**PLAIN, "messages": messages})
    assert refusal.parameter == f"messages.{place}"
    assert words in refusal.message


def test_errors_of_stop_texts_name_the_fault():
    assert "a string or a list of strings" in refused({**PLAIN, "stop": 3}).message
    assert refused({**PLAIN, "stop": ["a", 3]}).parameter == "stop.1"
    assert refused({**PLAIN, "stop": "x" * (limits.STOP + 1)}).parameter == "stop.0"
    assert read(stop="x" * limits.STOP).stops == ("x" * limits.STOP,)


def test_true_is_not_one():
    assert refused({**PLAIN, "n": True}).parameter == "n"
    assert refused({**PLAIN, "max_tokens": True}).parameter == "max_tokens"
    assert refused({**PLAIN, "logprobs": 0}).parameter == "logprobs"


@pytest.mark.parametrize(
    "messages",
    [
        [1] * limits.VALUES,
        [{"role": "user", "content": [SAID] * limits.VALUES}],
        [{str(number): 1 for number in range(limits.VALUES)}],
    ],
)
def test_no_errors_are_gathered_of_what_is_no_conversation(messages, monkeypatch):
    monkeypatch.setattr(ChatRequest, "model_validate", lambda body: pytest.fail("validated"))
    assert refused({**PLAIN, "messages": messages}).message == "The request holds more than 20000 values."


def test_no_list_is_made_of_what_is_no_conversation(monkeypatch):
    content = b'{"messages": [' + b"1," * limits.MARKS + b"1]}"
    monkeypatch.setattr("json.loads", lambda *more, **options: pytest.fail("parsed"))
    assert refused(content).message == "The request holds more than 400000 commas and brackets."


def test_there_may_be_so_many_messages():
    message = PLAIN["messages"][0]
    assert len(read(messages=[message] * limits.MESSAGES).messages) == limits.MESSAGES
    assert "at most 2048" in refused({**PLAIN, "messages": [message] * (limits.MESSAGES + 1)}).message


def test_a_field_may_come_once():
    assert refused(b'{"model": "a", "model": "b"}').parameter == "model"
    content = b'{"model": "a", "messages": [{"role": "user", "content": "Q", "content": "other"}]}'
    assert "two fields 'content'" in refused(content).message
    many = ",".join(f'"{number}": 1' for number in range(100_000))  # to compare each with each would take minutes
    assert "two fields '99999'" in refused(f'{{{many}, "99999": 1}}'.encode()).message


@pytest.mark.parametrize(
    "change",
    [
        {"\ud800": 1},
        {"model": "\ud800"},
        {"user": "\udfff"},
        {"stop": ["a\udc00"]},
        {"metadata": {"\ud800": "a"}},
        {"messages": [{"role": "user", "content": "\ud83d"}]},
        {"messages": [{"role": "user", "content": [{"type": "\ud800"}]}]},
    ],
)
def test_half_a_surrogate_pair_is_refused_wherever_it_is(change):
    refusal = refused({**PLAIN, **change})
    assert "half of a surrogate pair in '" in refusal.message
    json.dumps(refusal.body(), ensure_ascii=False).encode()
    assert read(user="\U0001f98e").user == "\U0001f98e"


def test_only_the_beginning_is_quoted():
    assert len(refused({**PLAIN, "x" * 10**6: 1}).message) < 3000
    long = refused({**PLAIN, "messages": [{"role": "user", "content": [{"type": "x" * 10**6}]}]})
    assert len(long.message) < 3000


def test_bodies_that_are_no_request():
    assert "not JSON" in refused(b"{").message
    assert "not JSON" in refused(b"\xff").message
    assert "not JSON" in refused(b"[" * 100_000).message
    assert "not JSON" in refused(b'{"seed": ' + b"1" * 5000 + b"}").message
    assert "not JSON" in refused(b'"\xed\xa0\x80"').message
    assert "not a JSON object" in refused(b"[]").message
    assert refused({"messages": PLAIN["messages"]}).parameter == "model"
    assert "they are the same" in refused({**PLAIN, "max_tokens": 1, "max_completion_tokens": 2}).message
