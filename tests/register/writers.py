"""Processes that append to a register, and are killed: python -m tests.register.writers FILE kill|count NUMBER."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from kvw.register.chain import append, begin, examine


def write(path: Path, count: int, told: int, mark: int) -> None:
    """Append so many entries; tell the head of each when it is done."""
    begin(path)
    for number in range(count):
        said = {"kind": "test", "mark": mark, "n": number}
        (entry,) = append(path, lambda entries, said=said: [said | {"of": len(entries)}])
        os.write(told, f"{entry.head}\n".encode())


def start(path: Path, count: int, told: int, mark: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        write(path, count, told, mark)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001
        print(error, file=sys.stderr)
        os._exit(1)


def kill(path: Path, kills: int) -> None:
    """Kill a writer at so many moments, and look at the register after each."""
    moments, heads, killed, left = random.Random(0), [], 0, 0
    for number in range(kills):
        reader, writer = os.pipe()
        child = start(path, 10**6, writer, number)
        os.close(writer)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        left += path.with_name(path.name + "-journal").exists()
        heads += os.fdopen(reader).read().split()
        entries, wrong = examine(path) if path.exists() else ([], [])
        assert not wrong, wrong
        known = {entry.head for entry in entries}
        assert not set(heads) - known, "an entry that was told is gone"
    print(json.dumps({"killed": killed, "entries": len(entries), "told": len(heads), "left": left}))


def together(path: Path, count: int) -> None:
    """Two writers at once."""
    children = [start(path, count, sys.stdout.fileno(), mark) for mark in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


if __name__ == "__main__":
    {"kill": kill, "together": together}[sys.argv[2]](Path(sys.argv[1]), int(sys.argv[3]))
