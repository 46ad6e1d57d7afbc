"""Work in a process of its own, with bounds on time and memory, so that a hang or a blow-up is a result like others."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from kvw.errors import UserError

SECONDS = 20
"""Processor time."""
PATIENCE = 6
"""How many times as long something may take that does not get a processor, or waits."""
MEMORY = 2**30
"""Bytes beyond what the process has before the work begins."""

Kind = Literal["success", "message", "traceback", "hang", "memory", "killed"]


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended.

    Args:
        kind: ``success``; ``message`` (a :class:`UserError`); or what must not happen.
        detail: The message or the traceback.
        memory: Largest resident memory beyond what was there before, in bytes.
    """

    kind: Kind
    detail: str
    memory: int


def bounded(work: Callable[[], object], *, seconds: int = SECONDS, memory: int = MEMORY) -> Outcome:
    """Run ``work`` in a forked process."""
    limit = psutil.Process().memory_info().vms + memory
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(work, writer, limit)
    os.close(writer)
    text = _read(reader, psutil.Process(child), seconds)
    if text is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if text is None:
        return Outcome("hang", f"more than {seconds} s", 0)
    if not text:
        return Outcome("killed", f"status {status}", 0)
    return Outcome(**json.loads(text))


def _run(work: Callable[[], object], writer: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    start = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    kind: Kind = "success"
    detail = ""
    try:
        work()
    except UserError as error:
        kind, detail = "message", str(error)
    except MemoryError:
        kind, detail = "memory", f"more than {MEMORY // 2**20} MB"
    except BaseException:  # noqa: BLE001
        detail = traceback.format_exc()
        kind = "memory" if "can't allocate memory" in detail else "traceback"
    found = Outcome(kind, detail[-4000:], max(0, _peak() - start))
    os.write(writer, json.dumps(asdict(found)).encode())
    sys.stdout = sys.stderr = None  # type: ignore[assignment]
    os._exit(0)


def _peak() -> int:
    """Largest resident memory of this process since it was last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _read(reader: int, child: psutil.Process, seconds: int) -> str | None:
    """What the child says; None if it says nothing in time."""
    end, parts = time.monotonic() + PATIENCE * seconds, []
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while time.monotonic() < end:
            if not select.select([pipe], [], [], 0.5)[0]:
                if _spent(child) > seconds:
                    return None
                continue
            part = pipe.read(65536)
            if not part:
                return b"".join(parts).decode()
            parts.append(part)
    return None


def _spent(child: psutil.Process) -> float:
    """Seconds of processor time that a process has taken, its children included."""
    spent = 0.0
    for process in (child, *child.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            spent += sum(process.cpu_times()[:4])  # user and system, of itself and of children that have ended
    return spent


def written(path: Path, content: bytes) -> Path:
    """A file with this content."""
    path.write_bytes(content)
    return path
