"""Requests that cost a server without limits its memory or its time: what `kvw serve` says to each, and what it costs.

Starts `kvw serve toy:vanilla` on this machine, sends each request once over loopback, and asks for /health meanwhile.
Printed for each: the status, seconds until it was there, resident memory of the server before and at most, and the
longest that /health took. Exit code 1 if one was not refused, or /health was not answered.

usage: python benchmarks/server_limits.py [--json]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

MIB = 2**20
SECONDS_TO_WAIT = 120
SECONDS_BETWEEN_LOOKS = 0.02
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Row:
    """What one request gave.

    Args:
        name: Of the request.
        status: HTTP status; 0 for a client that did not wait for it.
        message: The error's.
        seconds: Until the reply was there.
        before, most: Resident memory of the server in MiB.
        health: The longest that /health took meanwhile, in seconds.
        healthy: How often it was asked and answered.
    """

    name: str
    status: int
    message: str
    seconds: float
    before: float
    most: float
    health: float
    healthy: int


class Watch(threading.Thread):
    """Looks at the memory and the health of a server until it is stopped."""

    def __init__(self, process: psutil.Process, host: str) -> None:
        super().__init__()
        self._process, self._host, self._over = process, host, threading.Event()
        self.before = self.most = memory(process)
        self.health, self.healthy = 0.0, 0

    def run(self) -> None:
        while True:
            begin = time.perf_counter()
            status, _ = sent(self._host, "GET", "/health")
            self.health = max(self.health, time.perf_counter() - begin)
            self.healthy += status == 200
            self.most = max(self.most, memory(self._process))
            if self._over.wait(SECONDS_BETWEEN_LOOKS):
                break

    def stop(self) -> None:
        self._over.set()
        self.join()


def picture(width: int, height: int) -> dict[str, object]:
    """A part of a message: a white picture."""
    file = io.BytesIO()
    Image.new("1", (width, height), 1).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def requests() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Name, body and headers of each request."""

    def asked(**fields: object) -> bytes:
        plain = {"model": "none", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 1}
        return json.dumps({**plain, **fields}).encode()

    def shown(*pictures: dict[str, object]) -> bytes:
        return asked(messages=[{"role": "user", "content": [*pictures, {"type": "text", "text": "Who?"}]}])

    large = picture(13_000, 13_000)
    yield "a picture of 1 x 65,500", shown(picture(1, 65_500)), {}
    yield "a picture of 13,000 x 13,000", shown(large), {}
    yield "six of them", shown(*[large] * 6), {}
    yield "20 million ones as messages", asked(messages=[]).replace(b"[]", b"[" + b"1," * 19_999_999 + b"1]"), {}
    yield "a model's name of 20 MB", asked(model="x" * 20_000_000), {}
    yield "a prompt of 6 MB", asked(messages=[{"role": "user", "content": "word " * 1_200_000}]), {}
    yield "a stop text of 20 MB", asked(stop="x" * 20_000_000), {}
    yield "a body of 100 MB", asked(user="x" * 100_000_000), {}
    yield "a header of 60 KB", asked(), {"X-KVW-Edit": "x" * 60_000}


def sent(
    host: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Status and body of the reply to one request, on a connection of its own."""
    connection = http.client.HTTPConnection(host, timeout=SECONDS_TO_WAIT)
    with suppress(BrokenPipeError, ConnectionResetError):  # the server has answered before it had everything
        connection.request(method, path, body, headers or {})
    try:
        reply = connection.getresponse()
        return reply.status, reply.read().decode("utf-8", "replace")
    finally:
        connection.close()


def memory(process: psutil.Process) -> float:
    """Resident, in MiB."""
    return float(process.memory_info().rss) / MIB


def message(content: str) -> str:
    """The error's, or the beginning of a body that is none of the protocol."""
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return content[:100]


@contextmanager
def served() -> Iterator[tuple[psutil.Process, str]]:
    """A running server: its process and its address."""
    command = [sys.executable, "-m", "kvw", "serve", "toy:vanilla", "--allow-plain", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            yield psutil.Process(server.pid), urlsplit(line.strip()).netloc
        finally:
            server.kill()


def measured(process: psutil.Process, host: str, name: str, body: bytes, headers: dict[str, str]) -> Row:
    """Send one request."""
    watch = Watch(process, host)
    watch.start()
    begin = time.perf_counter()
    status, content = sent(host, "POST", CHAT, body, headers)
    seconds = time.perf_counter() - begin
    watch.stop()
    return Row(name, status, message(content), seconds, watch.before, watch.most, watch.health, watch.healthy)


def left(process: psutil.Process, host: str, body: bytes) -> Row:
    """Send a request, go away, and ask something small."""
    watch = Watch(process, host)
    watch.start()
    connection = http.client.HTTPConnection(host, timeout=SECONDS_TO_WAIT)
    connection.request("POST", CHAT, body)
    connection.close()
    begin = time.perf_counter()
    small = {"model": "none", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 1}
    status, content = sent(host, "POST", CHAT, json.dumps(small).encode())
    seconds = time.perf_counter() - begin
    watch.stop()
    name = "a question after a client with 6 MB has left"
    return Row(name, status, message(content)[:20], seconds, watch.before, watch.most, watch.health, watch.healthy)


def main() -> None:
    """Send all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    rows = []
    with served() as (process, host):
        for name, body, headers in requests():
            rows.append(measured(process, host, name, body, headers))
            if name == "a prompt of 6 MB":
                rows.append(left(process, host, body))
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        table = Table("request", "status", "seconds", "memory before", "at most (MiB)", "/health at most", "it said")
        for row in rows:
            numbers = (f"{row.seconds:.3f}", f"{row.before:.0f}", f"{row.most:.0f}", f"{row.health:.3f} s")
            table.add_row(row.name, str(row.status), *numbers, row.message)
        Console(width=200).print(table)
    refused = all(400 <= row.status < 500 for row in rows if not row.name.startswith("a question after"))
    sys.exit(0 if refused and all(row.healthy for row in rows) else 1)


if __name__ == "__main__":
    main()
