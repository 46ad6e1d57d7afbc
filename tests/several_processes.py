"""Runs a function in a process of its own, or in several as a launcher would, without paying for imports each time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 120.0
"""Seconds after which several processes count as hanging: they wait for each other."""

server = multiprocessing.get_context("forkserver")
# A clean process imports what is heavy once; the processes of all tests are forked from it.
server.set_forkserver_preload(["tests.several_processes_imports"])


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal that killed it), what it printed and what it returned."""

    code: int | None
    out: str
    errors: str
    result: Any


@dataclass(frozen=True)
class Started:
    """A process that runs beside the test, and the folder of what it prints."""

    process: Any
    folder: Path

    def until(self, text: str, stream: str = "out") -> str:
        """Wait for a text in ``out`` or ``errors``, or for the end; returns what was printed by then."""
        while True:
            ended = not self.process.is_alive()
            place = self.folder / stream
            printed = place.read_text() if place.exists() else ""
            if text in printed or ended:
                return printed
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> Ended:
        """Send a signal and wait for the end."""
        os.kill(self.process.pid, number)
        self.process.join(LONGEST)
        return _ended(self.process.exitcode, self.folder)


@contextmanager
def beside(work: Callable[..., Any], *arguments: Any, folder: Path) -> Iterator[Started]:
    """A function of a module in a process of its own, which is killed at the end of the block."""
    process = server.Process(target=_run, args=(work, arguments, {**os.environ, "OMP_NUM_THREADS": "1"}, folder))
    process.start()
    try:
        yield Started(process, folder)
    finally:
        process.kill()
        process.join()


def run_alone(work: Callable[..., Any], *arguments: Any, folder: Path) -> Ended:
    """Call a function of a module in a process of its own, and wait for its end."""
    (ended,) = _run_each(work, arguments, [{**os.environ, "OMP_NUM_THREADS": "1"}], folder, None)
    return ended


def run_several(work: Callable[..., Any], *arguments: Any, folder: Path, size: int = 2) -> list[Ended]:
    """Call a function of a module in ``size`` processes that find each other through the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    environment |= {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(size)}
    ranks = [environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return _run_each(work, arguments, ranks, folder, LONGEST)


def _run_each(
    work: Callable[..., Any],
    arguments: Sequence[Any],
    environments: Sequence[Mapping[str, str]],
    folder: Path,
    longest: float | None,
) -> list[Ended]:
    """One process for each environment; longer than ``longest`` seconds none may take."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / str(number) for number in range(len(environments))]
    processes = [
        server.Process(target=_run, args=(work, arguments, environment, place))
        for environment, place in zip(environments, places, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        for process, place in zip(processes, places, strict=True):
            process.join(longest)
            assert process.exitcode is not None, (place / "errors").read_text()
    finally:
        for process in processes:
            process.kill()
    return [_ended(process.exitcode, place) for process, place in zip(processes, places, strict=True)]


def _run(work: Callable[..., Any], arguments: Sequence[Any], environment: Mapping[str, str], folder: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    folder.mkdir(exist_ok=True)
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "errors")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    import torch

    torch.set_num_threads(1)
    result = work(*arguments)
    (folder / "result").write_bytes(pickle.dumps(result))


def _ended(code: int | None, folder: Path) -> Ended:
    result = folder / "result"
    value = pickle.loads(result.read_bytes()) if result.exists() else None
    return Ended(code, (folder / "out").read_text(), (folder / "errors").read_text(), value)
