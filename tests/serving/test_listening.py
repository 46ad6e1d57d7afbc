"""Connections whose requests are against the protocol, or never end; with raw sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from kvw.serving import listening
from kvw.serving.listening import listen, server


async def answer(request):
    return PlainTextResponse(f"{len(await request.body())} bytes")


ENTERED = threading.Event()


async def endless(request):
    ENTERED.set()
    await asyncio.sleep(600)


async def broken(request):
    raise ZeroDivisionError


ROUTES = [Route("/", answer, methods=["GET", "POST"]), Route("/endless", endless), Route("/broken", broken)]


@contextmanager
def serving():
    with listen("127.0.0.1", 0) as port:
        running = server(Starlette(routes=ROUTES))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [port]})
        thread.start()
        try:
            yield port.getsockname()
        finally:
            while not running.started and thread.is_alive():
                time.sleep(0.01)
            running.should_exit = True
            thread.join()


def everything(connection):
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: h\r\nX-A: "])
@pytest.mark.thorough
def test_headers_that_do_not_end_are_not_waited_for(monkeypatch, before, sent):
    monkeypatch.setattr(listening, "SECONDS_FOR_HEADERS", 0.1)
    with serving() as address, socket.create_connection(address, timeout=30) as connection:
        if before:
            connection.sendall(before)
            found = b""
            while not found.endswith(b"0 bytes"):
                found += connection.recv(65536)
        connection.sendall(sent)
        assert everything(connection) == b""


@pytest.mark.thorough
def test_a_body_may_take_longer_than_headers(monkeypatch):
    monkeypatch.setattr(listening, "SECONDS_FOR_HEADERS", 0.1)
    with serving() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\n1")
        time.sleep(0.3)
        connection.sendall(b"2")
        assert everything(connection).endswith(b"2 bytes")


@pytest.mark.parametrize("sent", [b"X-A: " + b"x" * 10**6, b"X: y\r\n" * 200_000])
def test_headers_are_bounded(sent):
    with serving() as address, socket.create_connection(address, timeout=30) as connection:
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n" + sent)
            assert b"400" in everything(connection).splitlines()[0]
        except ConnectionError:
            pass  # closed while there was still something to send


def test_websockets_are_not_spoken():
    upgrade = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n"
    with serving() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(upgrade)
        assert b"200 OK" in connection.recv(65536)


def test_a_server_that_ends_before_an_answer_does_says_so_without_a_traceback(monkeypatch, capfd):
    monkeypatch.setattr(listening, "SECONDS_TO_FINISH", 0)
    with serving() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 500 ")
        waiting = socket.create_connection(address, timeout=30)
        waiting.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        assert ENTERED.wait(30)
    with waiting:
        assert everything(waiting).startswith(b"HTTP/1.1 500 ")
    told = capfd.readouterr().err
    assert "Cancel 1 running task(s)" in told
    assert "CancelledError" not in told
    assert "ZeroDivisionError" in told  # a fault still has one
