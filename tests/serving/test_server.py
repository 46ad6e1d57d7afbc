"""A running server and the ``openai`` client: every tenant gets the model with the edits asked for, and no other."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import openai
import pytest
import torch
from tests.serving.running import Toy, running, until

from kvw.data import Example
from kvw.evaluation.endpoint import EndpointModel
from kvw.evaluation.records import Reply
from kvw.models.finding import find_value_matrices
from kvw.serving import engine as engine_module
from kvw.serving.conversation import Conversation
from kvw.serving.engine import Engine
from kvw.serving.generating import Decoding
from kvw.serving.limits import Limits
from kvw.serving.reception import Reception
from kvw.serving.refusals import Refusal

pytestmark = pytest.mark.thorough

ENDLESS = "alice+bob"
"""Under both edits the toy model repeats itself until the longest answer is reached."""


@pytest.fixture(scope="module")
def toy():
    return Toy()


@pytest.fixture(scope="module")
def server(toy):
    with running(toy, allow_plain=True) as found:
        yield found


@pytest.fixture
def slow(server):
    """The lengths of the inputs of every forward, each of which takes a little longer."""
    lengths = []

    def wait(module, arguments, options):
        lengths.append(options["input_ids"].shape[1])
        time.sleep(0.01)

    handle = server.model.register_forward_pre_hook(wait, with_kwargs=True)
    yield lengths
    handle.remove()


def shown(image):
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def test_the_model_is_chosen_by_name_and_says_what_it_says_here(toy, server):
    said = {}
    for name, edits in (("none", ()), ("alice", ("alice",)), ("bob", ("bob",)), ("bob+alice", ("bob", "alice"))):
        said[name] = toy.says(edits, toy.examples)
        for example, wanted in zip(toy.examples, said[name], strict=True):
            parts = [*map(shown, example.images), {"type": "text", "text": example.question}]
            reply = server.client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": parts}], max_tokens=16
            )
            assert reply.choices[0].message.content.strip() == wanted
            assert reply.model == name
            assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
            ended = reply.choices[0].finish_reason
            assert ended == "stop" or reply.usage.completion_tokens == 16
    assert any(example.images for example in toy.examples)
    for one, other in (("none", "alice"), ("none", "bob"), ("alice", "bob"), ("bob", "bob+alice")):
        assert sum(a != b for a, b in zip(said[one], said[other], strict=True)) >= 3


def test_evaluating_a_served_edit_is_evaluating_it_here(toy, server):
    for name in ("none", "alice", "bob"):
        served = EndpointModel(server.url, name).answers(toy.examples, max_new_tokens=5)
        here = toy.says(() if name == "none" else (name,), toy.examples, 5)
        assert served == [Reply(text) for text in here]


def test_two_tenants_at_the_same_time_never_mix(toy, server):
    questions = [example for example in toy.examples if not example.images]
    here = {name: toy.says((name,), questions) for name in ("alice", "bob")}
    assert all(a != b for a, b in zip(here["alice"][:3], here["bob"][:3], strict=True))
    together = threading.Barrier(2)

    def tenant(name):
        found = []
        for turn in range(20):
            together.wait(30)
            ask = server.streamed if turn % 2 else server.text
            found.append(ask(name, questions[turn % 3].question).strip())
        return found

    with ThreadPoolExecutor(2) as pool:
        for name, found in zip(here, pool.map(tenant, here), strict=True):
            assert found == [here[name][turn % 3] for turn in range(20)]


def test_a_stream_is_the_answer_piece_by_piece(toy, server):
    whole = server.ask("bob", toy.question)
    chunks = list(server.ask("bob", toy.question, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content for chunk in chunks[1:-2]]
    assert len(pieces) > 1
    assert all(pieces)
    assert "".join(pieces) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + [
        whole.choices[0].finish_reason
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert {chunk.model for chunk in chunks} == {"bob"}
    assert len({chunk.id for chunk in chunks}) == 1
    without = list(server.ask("bob", toy.question, stream=True))
    assert len(without) == len(chunks) - 1
    assert all(chunk.usage is None for chunk in without)


def test_the_header_overrides_the_name(toy, server):
    wanted = {name: server.text(name, toy.question) for name in ("none", "alice", "bob")}
    assert len(set(wanted.values())) == 3
    for name, text in wanted.items():
        for model in ("alice", "none", "not served"):
            reply = server.client.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": toy.question}],
                max_tokens=16,
                extra_headers={"X-KVW-Edit": name},
            )
            assert reply.headers["X-KVW-Edit"] == reply.parse().model == name
            assert reply.parse().choices[0].message.content == text
    with pytest.raises(openai.NotFoundError, match="Did you mean 'alice'"):
        server.ask("bob", toy.question, extra_headers={"X-KVW-Edit": "alcie"})


def test_drawing_is_repeatable_and_greedy_is_the_default(toy, server):
    text = toy.question
    greedy = server.text("alice", text)
    assert server.text("alice", text, temperature=0) == greedy
    drawn = [server.text("alice", text, temperature=2, seed=seed) for seed in (1, 2, 3, 1)]
    assert drawn[0] == drawn[3]
    assert len({greedy, *drawn}) == 4
    assert server.text("alice", text, temperature=2, top_p=1e-6) == greedy
    assert len({server.text("alice", text, temperature=2) for _ in range(4)}) > 1


def test_answers_end_where_they_are_told_to(server):
    question = "Who?"
    plain = server.ask(ENDLESS, question, max_tokens=12)
    text = plain.choices[0].message.content
    assert (plain.choices[0].finish_reason, plain.usage.completion_tokens) == ("length", 12)
    assert server.ask(ENDLESS, question, max_tokens=None, max_completion_tokens=12).usage == plain.usage
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    for stops in (stop, ["not there", stop]):
        stopped = server.ask(ENDLESS, question, max_tokens=12, stop=stops)
        assert stopped.choices[0].message.content == text[: text.index(stop)]
        assert stopped.choices[0].finish_reason == "stop"
        assert stopped.usage.completion_tokens < 12
        assert server.streamed(ENDLESS, question, max_tokens=12, stop=stops) == text[: text.index(stop)]


def test_an_answer_is_as_long_as_the_server_and_the_model_allow(toy):
    with running(toy, longest_answer=20) as server:
        assert server.ask(ENDLESS, "Who?", max_tokens=None).usage.completion_tokens == 20
        with pytest.raises(openai.BadRequestError, match="at most 20 tokens here; 21 were"):
            server.ask(ENDLESS, "Who?", max_tokens=21)
    with running(toy, longest_answer=1000) as server:
        found = server.ask(ENDLESS, "Who?", max_tokens=None)
        assert found.usage.total_tokens == 512
        with pytest.raises(openai.BadRequestError) as refused:
            server.ask(ENDLESS, "Who?", max_tokens=found.usage.completion_tokens + 1)
        assert refused.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError, match="reads at most 512 tokens"):
            server.ask("alice", "Who is this? " * 200, max_tokens=None)


def test_a_client_that_leaves_in_mid_stream_ends_its_generation(toy, server, slow):
    stream = server.ask(ENDLESS, "Who?", stream=True, max_tokens=400)
    assert next(stream).choices[0].delta.role == "assistant"
    assert next(stream).choices[0].delta.content
    stream.close()
    assert server.text("none", toy.question).strip() == toy.says((), [Example(toy.question, "-")])[0]
    assert len(slow) < 200
    until(lambda: not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(server.model)))


def test_a_client_that_waits_no_longer_ends_its_generation_or_never_begins_it(toy, server, slow):
    impatient = server.client.with_options(timeout=0.3)
    message = [{"role": "user", "content": "Who?"}]
    stream = server.ask(ENDLESS, "Who?", stream=True, max_tokens=400)
    next(stream)
    for streamed in (False, True):  # while the first one has its turn, so they never get theirs
        with pytest.raises(openai.APITimeoutError):
            impatient.chat.completions.create(model="bob", messages=message, stream=streamed)
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model=ENDLESS, messages=message, max_tokens=400)
    assert server.text("none", toy.question).strip() == toy.says((), [Example(toy.question, "-")])[0]
    assert sum(length > 1 for length in slow) == 3
    assert len(slow) < 400


def test_a_client_that_leaves_before_its_turn_costs_nothing(toy, server, slow, monkeypatch):
    """Its prompt is not even made: neither of one that waits, nor the rest of one that is being counted."""
    made, counted = [], []
    prompt = engine_module.prompt_inputs
    monkeypatch.setattr(engine_module, "prompt_inputs", lambda said, *more: made.append(said) or prompt(said, *more))
    stream = server.ask(ENDLESS, "Who?", stream=True, max_tokens=400)
    next(stream)
    made.clear()
    impatient = server.client.with_options(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model="bob", messages=[{"role": "user", "content": "Where?"}])
    stream.close()
    server.text("none", toy.question)
    assert [said.texts for said in made] == [[toy.question]]

    class Left:
        wanted = True

        def check(self, text, **options):
            counted.append(text)
            self.wanted = False
            return {"input_ids": []}

    left = Left()
    engine = Engine(toy.model, toy.processor, toy.edits, longest_answer=4)
    monkeypatch.setattr(engine, "_processor", SimpleNamespace(tokenizer=left.check))
    with pytest.raises(Refusal, match="Nobody waits"):
        engine._inputs(left, Conversation([{"content": [{"type": "text", "text": "x" * 100_000}]}], ()))
    assert len(counted) == 1
    engine.close()


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e-38, 1e-9])
def test_no_temperature_is_too_low_to_answer(toy, server, temperature):
    assert server.text("alice", toy.question, temperature=temperature) == server.text("alice", toy.question)
    assert server.text("alice", toy.question, temperature=1e-5, seed=1) == server.text("alice", toy.question)
    assert server.text("alice", toy.question, temperature=1, top_p=5e-324) == server.text("alice", toy.question)


def test_a_long_prompt_is_refused_without_being_made(toy, server, monkeypatch):
    monkeypatch.setattr(engine_module, "prompt_inputs", lambda *more: pytest.fail("made"))
    tokenizer, lengths = toy.processor.tokenizer, []
    call = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer), "__call__", lambda self, text, **more: lengths.append(len(text)) or call(self, text, **more)
    )
    with pytest.raises(openai.BadRequestError, match="reads at most 512 tokens; the prompt has at least") as refused:
        server.ask("alice", "word " * 1_000_000)
    assert refused.value.code == "context_length_exceeded"
    assert sum(lengths) <= 2 * engine_module.PIECE


def test_a_prompt_of_many_pieces_is_counted_as_it_is(toy, server, monkeypatch):
    """Cutting a text must not make a prompt too long that is not."""
    monkeypatch.setattr(engine_module, "PIECE", 200)
    question = "Who is this person, and what does she do at the weekend? " * 20
    tokens = server.ask("alice", question, max_tokens=1).usage.prompt_tokens
    for most in (tokens, tokens - 1):
        with running(toy, limits=Limits(prompt_tokens=most)) as small:
            if most == tokens:
                assert small.ask("alice", question, max_tokens=1).usage.prompt_tokens == tokens
            else:
                with pytest.raises(openai.BadRequestError, match=f"at most {most} tokens; the prompt has {tokens}"):
                    small.ask("alice", question, max_tokens=1)


def test_there_is_room_for_so_many_requests(toy, monkeypatch):
    doors = []

    class Door(Reception):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            doors.append(self)

    monkeypatch.setattr("kvw.serving.app.Reception", Door)
    release = threading.Event()
    limits = Limits(requests=2)
    with running(toy, allow_plain=True, limits=limits) as server, ThreadPoolExecutor(2) as pool:
        handle = server.model.register_forward_pre_hook(lambda module, arguments: release.wait(30) and None)
        waiting = [pool.submit(server.text, "none", toy.question) for _ in range(2)]
        until(lambda: doors and doors[0]._free == 0)
        with pytest.raises(openai.InternalServerError, match="as many requests as it can hold") as told:
            server.text("none", toy.question)
        assert (told.value.status_code, told.value.code) == (503, "overloaded")
        assert told.value.response.headers["Retry-After"] == "1"
        assert fetched(f"{server.url.removesuffix('/v1')}/health")[0] == 200
        release.set()
        wanted = toy.says((), [Example(toy.question, "-")])[0]
        assert [found.result().strip() for found in waiting] == [wanted] * 2
        until(lambda: doors[0]._free == 2)
        handle.remove()
        assert server.text("none", toy.question).strip() == wanted


def test_an_answer_that_takes_too_long_is_ended(toy):
    with running(toy, allow_plain=True, limits=Limits(seconds=1)) as server:
        forwards = []
        handle = server.model.register_forward_pre_hook(lambda module, arguments: forwards.append(time.sleep(0.05)))
        for streamed, kind in ((False, openai.InternalServerError), (True, openai.APIError)):
            forwards.clear()
            with pytest.raises(kind, match="not there within 1 seconds"):
                (server.streamed if streamed else server.text)(ENDLESS, "Who?", max_tokens=400)
            assert len(forwards) < 200
        handle.remove()
        assert server.text("none", toy.question).strip() == toy.says((), [Example(toy.question, "-")])[0]


def test_models_are_listed(toy, server):
    assert [model.id for model in server.client.models.list()] == ["alice", "bob", "none"]
    assert server.client.models.retrieve("bob+alice").id == "bob+alice"
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("carol")
    with running(toy, default="bob") as safe:
        assert [model.id for model in safe.client.models.list()] == ["toy:vanilla", "alice", "bob"]
        assert safe.client.models.retrieve("toy:vanilla").id == "toy:vanilla"
        assert safe.text("toy:vanilla", toy.question) == server.text("bob", toy.question)
        assert safe.ask("toy:vanilla", toy.question).model == "bob"
        for headers in ({}, {"X-KVW-Edit": "none"}):
            with pytest.raises(openai.PermissionDeniedError, match="does not serve the model without an edit"):
                safe.ask("none", toy.question, extra_headers=headers)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": "alcie"}, openai.NotFoundError, "Did you mean 'alice'"),
        ({"model": "toy:vanilla"}, openai.NotFoundError, "stands for none of the edits"),
        ({"logprobs": True}, openai.BadRequestError, "'logprobs' is not supported"),
        ({"n": 2}, openai.BadRequestError, "'n' is not supported"),
        ({"temperature": 3}, openai.BadRequestError, "less than or equal to 2"),
        ({"messages": [{"role": "user", "content": "<image>"}]}, openai.BadRequestError, "a placeholder"),
        ({"messages": [{"role": "user", "content": [shown(b"")]}]}, openai.BadRequestError, "cannot be read"),
        ({"messages": [{"role": "assistant", "content": "A"}]}, openai.BadRequestError, "must be the user's"),
        ({"user": "x" * (65 * 2**20)}, openai.APIStatusError, "larger than 64 MiB"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests_are_told_why(toy, server, changes, kind, words, stream):
    plain = {"model": "alice", "messages": [{"role": "user", "content": "Q"}], "stream": stream}
    with pytest.raises(kind, match=words):
        server.client.chat.completions.create(**{**plain, **changes})
    assert server.text("alice", toy.question).strip() == toy.says(("alice",), [Example(toy.question, "-")])[0]


def fetched(url, data=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data)) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def raw(url, request):
    """The status and the body of what comes back for these bytes."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("request_line", "host", "status"),
    [
        ("GET /nowhere HTTP/1.1", "[::1", 404),
        ("GET /health/ HTTP/1.1", "h", 404),
        ("GET /v1/models/%ff%fe HTTP/1.1", "h", 404),
        ("GET /v1/models/" + "x" * 5000 + " HTTP/1.1", "h", 404),
        ("DELETE /v1/chat/completions HTTP/1.1", "h", 405),
        ("GET /" + "x" * 5000 + " HTTP/1.1", "h", 404),
    ],
)
def test_whatever_is_asked_for_is_answered_in_the_protocol(server, request_line, host, status):
    found, body = raw(server.url, f"{request_line}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    error = json.loads(body)["error"]
    assert (found, error["type"]) == (status, "invalid_request_error")
    assert len(error["message"]) < 300


@pytest.mark.parametrize("name", ["x" * 5000, "\u00e9\u00ff", "alice+" * 100])
def test_the_header_is_bounded_and_quoted_as_text(server, name):
    body = json.dumps({"model": "alice", "messages": [{"role": "user", "content": "Q"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nX-KVW-Edit: {name}\r\nConnection: close\r\n"
    found, content = raw(server.url, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))
    error = json.loads(content)["error"]
    assert (found, error["param"], error["code"]) == (404, "X-KVW-Edit", "model_not_found")
    assert len(error["message"]) < 300


def test_addresses(server):
    root = server.url.removesuffix("/v1")
    assert fetched(f"{root}/health") == (200, {"status": "ok"})
    status, body = fetched(f"{root}/v1/completions", b"{}")
    assert (status, body["error"]["message"]) == (404, "There is nothing at POST /v1/completions.")
    assert fetched(f"{root}/v1/chat/completions")[0] == 405
    status, body = fetched(f"{root}/v1/chat/completions", b"{")
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")


def failing(failure, when):
    """A hook that raises at this forward."""
    forwards = itertools.count(1)

    def hook(module, arguments):
        if next(forwards) == when:
            raise failure

    return hook


@pytest.mark.parametrize("when", [1, 3])
def test_a_failure_of_the_server_is_told_and_passes(toy, server, when, caplog):
    """At the first token there is no stream yet whose status could be taken back, later there is."""
    for failure, status, words in (
        (ZeroDivisionError("secret"), 500, "its log says why"),
        (torch.OutOfMemoryError(), 413, "fit into the memory"),
        (RuntimeError("MPS backend out of memory"), 413, "fit into the memory"),
    ):
        for stream in (False, True):
            handle = server.model.register_forward_pre_hook(failing(failure, when))
            with pytest.raises(openai.APIError, match=words) as told:
                (server.streamed if stream else server.text)(ENDLESS, "Who?")
            handle.remove()
            assert "secret" not in str(told.value)
            assert stream or told.value.status_code == status
            assert not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(server.model))
    assert "ZeroDivisionError: secret" in caplog.text
    assert server.text("alice", toy.question).strip() == toy.says(("alice",), [Example(toy.question, "-")])[0]


def test_closing_ends_the_answer_on_its_way_and_those_that_wait(toy):
    async def ask():
        engine = Engine(toy.model, toy.processor, toy.edits, longest_answer=400, together=1)
        asked = Conversation([{"role": "user", "content": [{"type": "text", "text": "Who?"}]}], ())
        first, second = (engine.ask(["alice", "bob"], asked, Decoding(400)) for _ in range(2))
        await first.begun()
        await asyncio.to_thread(engine.close)
        text, ending = await first.whole()
        assert text
        assert ending.answer_tokens < 400
        with pytest.raises(Refusal, match="is ending"):
            await second.begun()
        with pytest.raises(Refusal, match="is ending"):
            await second.whole()

    asyncio.run(ask())
    assert not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(toy.model))
