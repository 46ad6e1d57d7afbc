"""Many clients of several tenants at the same time: whose answers they get, what memory it takes, and how fast it is.

    python benchmarks/serve_load.py smollm2:135m --edit play=run/edit.safetensors --edit spain=run2/edit.safetensors \
        --questions questions.txt --minutes 10

Every tenant has a key for one name: an edit, both together, or the model without one. What it is to get is asked first,
by one client alone. Then all clients ask for so many minutes, each for a tenant of its own, while an intruder tries
every minute what must be refused. At the end kvw serve and transformers serve answer the same clients by turns, with
the model as it is. Both run on one thread (OMP_NUM_THREADS=1) unless the environment says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kvw.models.loading import find_checkpoint

SECONDS_TO_WAIT = 3600
"""For an answer: on a machine that others use, fifty clients wait long."""
ROUNDS = 2
"""How often the two servers are asked by turns."""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, its process, and what a request for a tenant has to say."""

    host: str
    port: int
    process: subprocess.Popen[str]
    model: Callable[[str], str]
    keys: Mapping[str, str]

    def ask(self, connection: http.client.HTTPConnection, tenant: str, question: str, tokens: int) -> tuple[str, int]:
        """The answer to a question, and how many tokens it has."""
        status, body = self.send(connection, self.model(tenant), question, tokens, self.keys.get(tenant))
        assert status == 200, body
        return body["choices"][0]["message"]["content"], body["usage"]["completion_tokens"]

    def send(
        self,
        connection: http.client.HTTPConnection,
        model: str,
        question: str,
        tokens: int,
        key: str | None,
        **headers: str,
    ) -> tuple[int, Any]:
        """Status and body of the reply to one request."""
        asked = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": tokens,
        }
        given = {"Content-Type": "application/json", **headers}
        if key is not None:
            given["Authorization"] = f"Bearer {key}"
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), given)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    def connect(self) -> http.client.HTTPConnection:
        """A connection that waits as long as an answer may take."""
        return http.client.HTTPConnection(self.host, self.port, timeout=SECONDS_TO_WAIT)


@dataclass
class Seen:
    """What the clients got."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)
    other: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def speed(self, duration: float) -> str:
        """Answers, tokens and seconds as a line."""
        quantiles = statistics.quantiles(self.seconds, n=20) if len(self.seconds) > 1 else [0.0] * 19
        return (
            f"{len(self.seconds)} answers, {len(self.seconds) / duration:.2f} a second, "
            f"{self.tokens / duration:.1f} tokens a second, seconds to an answer: median {quantiles[9]:.1f}, "
            f"95 % within {quantiles[18]:.1f}"
        )


def main() -> None:
    """Load the servers, and print what came of it."""
    given = arguments()
    questions = [line for line in given.questions.read_text("utf-8").splitlines() if line.strip()]
    names = [entry.partition("=")[0] for entry in given.edit]
    tenants = [*names, *(["+".join(names)] if len(names) > 1 else []), "none"]
    with tempfile.TemporaryDirectory() as folder, kvw_serve(given, tenants, Path(folder)) as server:
        wanted = alone(server, tenants, questions, given.tokens)
        told = [question for question in questions if len({wanted[one, question] for one in tenants}) > 1]
        print(f"{len(tenants)} tenants, {len(questions)} questions, {len(told)} tell some tenants apart", flush=True)
        seen, memory, refused = loaded(server, tenants, questions, wanted, given)
        print(f"{given.clients} clients, {given.minutes:g} minutes: {seen.speed(60 * given.minutes)}")
        print(f"answers of another tenant: {len(seen.wrong)}; otherwise not as alone: {len(seen.other)}")
        for one in (seen.wrong + seen.other)[:5]:
            print(f"  {one}")
        print(f"resident memory, MiB: {memory_line(memory)}")
        print(f"tried and refused: {dict(refused)}")
        if given.compare:
            compare(server, questions, given)
    if seen.wrong:
        sys.exit(1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--edit", action="append", required=True, help="NAME=FILE; repeatable")
    parser.add_argument("--questions", type=Path, required=True, help="a question a line")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=24, help="longest answer")
    parser.add_argument("--together", type=int, default=8)
    parser.add_argument("--compare", type=float, default=60, help="seconds for each turn of a server; 0 for none")
    return parser.parse_args()


def alone(server: Server, tenants: list[str], questions: list[str], tokens: int) -> dict[tuple[str, str], str]:
    """What each tenant gets when nobody else asks."""
    connection = server.connect()
    pairs = itertools.product(tenants, questions)
    return {(one, question): server.ask(connection, one, question, tokens)[0] for one, question in pairs}


def loaded(
    server: Server,
    tenants: list[str],
    questions: list[str],
    wanted: dict[tuple[str, str], str],
    given: argparse.Namespace,
) -> tuple[Seen, list[float], Counter[str]]:
    """All clients for the whole time; the memory every five seconds, and what an intruder got."""
    memory: list[float] = []
    refused: Counter[str] = Counter()
    over = threading.Event()

    def watch() -> None:
        process = psutil.Process(server.process.pid)
        while not over.wait(5):
            memory.append(process.memory_info().rss / 2**20)
            if len(memory) % 12 == 0:
                print(f"after {len(memory) // 12} minutes: {memory[-1]:.0f} MiB", flush=True)

    def intrude() -> None:
        while not over.wait(min(60, 20 * given.minutes)):
            refused.update(intruded(server, tenants, questions[0]))

    beside = [threading.Thread(target=one) for one in (watch, intrude)]
    for thread in beside:
        thread.start()
    seen = crowd(server, tenants, questions, given.clients, 60 * given.minutes, given.tokens, wanted)
    over.set()
    for thread in beside:
        thread.join()
    return seen, memory, refused


def crowd(
    server: Server,
    tenants: list[str],
    questions: list[str],
    clients: int,
    seconds: float,
    tokens: int,
    wanted: Mapping[tuple[str, str], str] | None = None,
) -> Seen:
    """So many clients ask for so long, each for one tenant; answers that come later do not count."""
    seen, end, failures = Seen(), time.monotonic() + seconds, list[BaseException]()

    def client(number: int) -> None:
        try:
            connection, tenant = server.connect(), tenants[number % len(tenants)]
            for turn in itertools.count(number):
                began, question = time.monotonic(), questions[turn % len(questions)]
                if began >= end or failures:
                    return
                text, count = server.ask(connection, tenant, question, tokens)
                with seen.lock:
                    if time.monotonic() <= end:
                        seen.seconds.append(time.monotonic() - began)
                        seen.tokens += count
                    if wanted is not None and text != wanted[tenant, question]:
                        theirs = [one for one in tenants if wanted[one, question] == text]
                        (seen.wrong if theirs else seen.other).append((tenant, question, text))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return seen


def intruded(server: Server, tenants: list[str], question: str) -> Iterator[str]:
    """What must be refused, with the status that it got; anything but a refusal ends the benchmark."""
    own, other = tenants[0], tenants[1]
    key = server.keys[own]
    tricks: dict[str, tuple[str, str | None, dict[str, str]]] = {
        "no key": (own, None, {}),
        "wrong key": (own, key[:-1] + ("a" if key[-1] != "a" else "b"), {}),
        "key for another edit": (other, key, {}),
        "header of another edit": (own, key, {"X-KVW-Edit": other}),
        "header of the plain model": (own, key, {"X-KVW-Edit": "none"}),
        "plain model": ("none", key, {}),
        "both edits": ("+".join(tenants[:2]), key, {}),
    }
    for name, (model, given, headers) in tricks.items():
        status, body = server.send(server.connect(), model, question, 4, given, **headers)
        if status not in (401, 403):
            raise AssertionError(f"{name}: {status} {body}")
        yield f"{name}: {status}"


def memory_line(memory: list[float]) -> str:
    """The memory in the first tenth after the beginning, in the middle and at the end."""
    tenth = max(1, len(memory) // 10)
    parts = (memory[tenth : 2 * tenth], memory[len(memory) // 2 :][:tenth], memory[-tenth:])
    return " -> ".join(f"{statistics.median(part or memory):.0f}" for part in parts) + f", most {max(memory):.0f}"


def compare(server: Server, questions: list[str], given: argparse.Namespace) -> None:
    """Both servers by turns, with the plain model."""
    with transformers_serve(given.model) as other:
        speeds: dict[str, list[float]] = {"kvw serve": [], "transformers serve": []}
        for _, (name, one) in itertools.product(range(ROUNDS), (("kvw serve", server), ("transformers serve", other))):
            seen = crowd(one, ["none"], questions, given.clients, given.compare, given.tokens)
            speeds[name].append(seen.tokens / given.compare)
            print(f"{name}: {seen.speed(given.compare)}", flush=True)
    ours, theirs = (sum(found) for found in speeds.values())
    print(f"kvw serve / transformers serve, tokens a second: {ours / theirs:.2f}")


@contextlib.contextmanager
def kvw_serve(given: argparse.Namespace, tenants: list[str], folder: Path) -> Iterator[Server]:
    """The server with keys; each opens one name."""
    keys = {}
    for tenant in tenants:
        add = [sys.executable, "-m", "kvw", "keys", "add", str(folder / "keys.json"), tenant.replace("+", "-and-")]
        added = subprocess.run([*add, "--model", tenant], capture_output=True, text=True, check=True)
        keys[tenant] = added.stdout.split()[-1]
    edits = [word for entry in given.edit for word in ("--edit", entry)]
    sizes = ["--max-requests", str(given.clients + 8), "--together", str(given.together)]
    sizes += ["--timeout", str(SECONDS_TO_WAIT)]
    command = [sys.executable, "-m", "kvw", "serve", given.model, *edits, "--allow-plain", "--port", "0", *sizes]
    with ended([*command, "--keys", str(folder / "keys.json")]) as process:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().removeprefix("http://").removesuffix("/v1").partition(":")
        yield Server(host, int(port), process, lambda tenant: tenant, keys)


@contextlib.contextmanager
def transformers_serve(model: str) -> Iterator[Server]:
    """The server of transformers with the same checkpoint, as it comes."""
    folder = str(find_checkpoint(model).folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with ended([*command, "--dtype", "float32", "--log-level", "error"]) as process:
        server = Server("127.0.0.1", port, process, lambda tenant: folder, {})
        while True:
            with contextlib.suppress(OSError):
                server.ask(server.connect(), "", "Who?", 1)
                break
            assert process.poll() is None, "transformers serve has ended"
            time.sleep(1)
        yield server


@contextlib.contextmanager
def ended(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is told to end with the block."""
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
