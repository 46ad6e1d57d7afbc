"""Room, size and time of requests, without a model."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from kvw.serving import limits, reception
from kvw.serving.reception import Reception, body
from kvw.serving.refusals import Refusal


def run_within_bounds(work):
    """Run it; what would wait for ever is an error."""
    return asyncio.run(asyncio.wait_for(work, 30))


def receiver(*messages):
    """``receive`` of an application; at the end nothing comes any more."""
    waiting = list(messages)

    async def receive():
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()

    return receive


def piece(content, more=True):
    return {"type": "http.request", "body": content, "more_body": more}


def read(*messages, most=10, headers=()):
    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers]}
    return run_within_bounds(body(Request(scope, receiver(*messages)), most))


def refused(*messages, **options):
    with pytest.raises(Refusal) as found:
        read(*messages, **options)
    return found.value


@pytest.fixture
def hasty(monkeypatch):
    """No test waits for what does not come."""
    monkeypatch.setattr(reception, "SECONDS_TO_LISTEN", 0.01)
    monkeypatch.setattr(limits, "SECONDS_FOR_BODY", 0.01)


def test_a_body_comes_in_pieces():
    assert read(piece(b"12345"), piece(b"67890", more=False)) == b"1234567890"


def test_a_body_that_is_too_large_is_refused_and_not_kept(hasty):
    announced = refused(piece(b"x" * 11), most=10, headers=[("content-length", "11")])
    counted = refused(piece(b"12345"), piece(b"678901"), piece(b"x", more=False))
    for refusal in (announced, counted):
        assert (refusal.status, refusal.message) == (413, "The request is larger than 10 bytes.")
    for size in (3, 11):
        with pytest.raises(ClientDisconnect):
            read(piece(b"x" * size), {"type": "http.disconnect"})
    assert "larger than 1 MiB" in refused(piece(b"x" * (2**20 + 1), more=False), most=2**20).message


def test_a_body_that_does_not_come_is_not_waited_for(hasty):
    refusal = refused(piece(b"12345"))
    assert (refusal.status, refusal.code) == (408, "timeout")


class Held:
    """An application that answers when it is told to."""

    def __init__(self, *sent):
        self.sent = sent
        self.go_on = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, scope, receive, send):
        try:
            for message in self.sent:
                await send(message)
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def ask(door, sent):
    async def send(message):
        sent.append(message)

    await door({"type": "http"}, receiver(piece(b"", more=False)), send)


def test_there_is_room_for_so_many_and_again_when_one_has_gone():
    async def run():
        held = Held()
        door = Reception(held, seconds=100, most=2)
        waiting = [asyncio.create_task(ask(door, [])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="as many requests") as found:
            await ask(door, [])
        assert (found.value.status, found.value.code) == (503, "overloaded")
        waiting[0].cancel()
        held.go_on.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        await ask(door, [])

    run_within_bounds(run())


def test_what_takes_too_long_is_ended():
    async def run():
        held, sent = Held(), []
        with pytest.raises(Refusal, match=r"not there within 0\.01 seconds") as found:
            await ask(Reception(held, seconds=0.01, most=1), sent)
        assert (found.value.status, held.cancelled, sent) == (503, 1, [])

    run_within_bounds(run())


def test_a_stream_that_takes_too_long_says_so_at_its_end():
    start = {"type": "http.response.start", "status": 200, "headers": []}
    more = {"type": "http.response.body", "body": b"data: {}", "more_body": True}

    async def run(*messages):
        held, sent = Held(*messages), []
        await ask(Reception(held, seconds=0.01, most=1), sent)
        assert held.cancelled == 1
        return sent

    *_, last = run_within_bounds(run(start, more))
    assert b"not there within" in last["body"]
    assert last["more_body"] is False
    assert run_within_bounds(run(start, {**more, "more_body": False}))[-1]["body"] == b"data: {}"


def test_a_client_that_does_not_read_holds_no_place(hasty):
    """Not even the last event can be sent to it."""

    async def run():
        door = Reception(Held({"type": "http.response.start"}), seconds=0.01, most=1)

        async def send(message):
            await asyncio.Event().wait()

        await door({"type": "http"}, receiver(piece(b"", more=False)), send)
        with pytest.raises(Refusal, match="not there within"):
            await ask(Reception(Held(), seconds=0.01, most=1), [])
        assert door._free == 1

    run_within_bounds(run())
