"""A running server and the ``openai`` client: every tenant gets the model with the edits asked for, and no other."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch
from tests.serving.running import Toy, running

from kvw.data import Example
from kvw.evaluation import EndpointModel, Reply
from kvw.models.finding import find_value_matrices
from kvw.serving.conversation import Conversation
from kvw.serving.engine import Decoding, Engine
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
    assert not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(server.model))


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
        engine = Engine(toy.model, toy.processor, toy.edits, longest_answer=400)
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
