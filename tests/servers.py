"""Servers to ask in tests: transformers' own, and one that says what a test wants."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeGuard

START = "from transformers.cli.transformers import main; main()"
SECONDS_TO_START = 120

Answer = tuple[int, Any]
"""Status and body of a reply; a body that is not a text is sent as JSON."""


@contextmanager
def transformers_serve(folder: Path, log: Path) -> Iterator[str]:
    """``transformers serve`` with a local checkpoint; yields its URL. The served model is called as the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", START, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        server = subprocess.Popen([*command, "--device", "cpu"], stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


class Fake:
    """A server that answers as it is told.

    Attributes:
        url: Where it is.
        requests: The bodies of all requests for an answer, in the order in which they came.
        keys: The Authorization headers of those requests.
        models: What it lists, or a reply to send instead.
        answer: From the text of a question and how often it was asked before to a text, or a reply to send instead.
        largest_at_once: The most requests that were waiting for their replies at one time.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[dict[str, Any]] = []
        self.models: list[str] | Answer = ["served"]
        self.answer: Callable[[str, int], str | Answer] = lambda question, before: f"answer to {question}"
        self.keys: list[str] = []
        self.largest_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    @property
    def questions(self) -> list[str]:
        """The texts of the questions, without the opening one."""
        return [text for text in map(_text, self.requests) if text != "Hello"]

    def reply(self, body: dict[str, Any] | None) -> Answer:
        """The reply to a request for the list of models (None) or for an answer."""
        if body is None:
            listed = self.models
            return (
                (200, {"object": "list", "data": [_model(name) for name in listed]})
                if isinstance(listed, list)
                else listed
            )
        with self._lock:
            text = _text(body)
            before = sum(_text(other) == text for other in self.requests)
            self.requests.append(body)
            self._now += 1
            self.largest_at_once = max(self.largest_at_once, self._now)
        try:
            found = "hello" if text == "Hello" and before == 0 else self.answer(text, before)
        finally:
            with self._lock:
                self._now -= 1
        return (200, completion(found)) if isinstance(found, str) else found


@contextmanager
def fake_server() -> Iterator[Fake]:
    """A running :class:`Fake`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(fake.reply(None) if self.path == "/v1/models" else (404, {"detail": "Not Found"}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.keys.append(self.headers["Authorization"])
            self._send(fake.reply(body) if self.path == "/v1/chat/completions" else (404, {"detail": "Not Found"}))

        def _send(self, answer: Answer) -> None:
            status, body = answer
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if str(body).startswith("<") else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("retry-after-ms", "1")  # so that no test waits
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, address: Any) -> None:
            """Say nothing: a client that has waited long enough is gone before its reply is written."""

    server = Server(("127.0.0.1", 0), Handler)
    fake = Fake(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: Any, reason: str = "stop", **more: Any) -> dict[str, Any]:
    """A whole reply of the protocol; ``more`` are fields of the message."""
    message = {"role": "assistant", "content": text, **more}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "served", "choices": [choice]}


def _text(body: dict[str, Any]) -> str:
    text: str = body["messages"][0]["content"][-1]["text"]
    return text


def _is_list(models: list[str] | Answer) -> TypeGuard[list[str]]:
    return isinstance(models, list)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "nobody"}
