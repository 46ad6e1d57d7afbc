"""Work that may never end or eat all memory, tried out in a copy of this process that is stopped at bounds."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import resource

SECONDS = 3
"""Processor time that the work may take."""
MEMORY = 512 * 2**20
"""Bytes that the work may take on top of what the process has."""
PATIENCE = 60.0
"""Seconds of waiting for a copy that may get no processor at all."""
FORKS = sys.platform == "linux"
"""Elsewhere a copy of a process with threads is not safe (macOS), or there is none."""

TOO_LONG = f"it does not end within {SECONDS} seconds"
TOO_LARGE = f"it takes more than {MEMORY // 2**20} MiB of memory"
TOO_DEEP = "it calls itself without end"
STOPPED = "it makes the program crash"


def trouble(work: Callable[[], str]) -> str:
    """Try out work that is not trusted to end.

    Where the operating system allows, this is done in a copy of the process with a limit on processor time and on
    memory; elsewhere in a thread, where only the time is limited, and a thread that does not end goes on until the
    program ends.

    Args:
        work: What to try; returns what it found wrong, or an empty string. Its other errors do not count.

    Returns:
        What is wrong, as the second half of a sentence; empty if the work ended well or by an ordinary error.
    """
    if FORKS:
        found = _in_copy(work)
        if found is not None:
            return found
    return _in_thread(work)


def _outcome(work: Callable[[], str]) -> str:
    try:
        return work()
    except MemoryError:
        return TOO_LARGE
    except RecursionError:
        return TOO_DEEP
    except Exception:  # noqa: BLE001 - whoever does the work in earnest meets it again, and tells it better
        return ""


def _in_thread(work: Callable[[], str]) -> str:
    raised: list[str] = []
    thread = threading.Thread(target=lambda: raised.append(_outcome(work)), daemon=True)
    thread.start()
    thread.join(SECONDS)
    return raised[0] if raised else TOO_LONG


def _in_copy(work: Callable[[], str]) -> str | None:
    """What is wrong; None if the copy got nowhere, perhaps because of a lock that another thread held."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Later versions of Python warn of forks beside threads. The copy runs only Python code, and is waited for.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _be_the_copy(work, writing)
    os.close(writing)
    status = None
    try:
        answer = _answer(reading)
        if answer is not None and not answer.endswith("\n"):  # it ended without a word
            status = os.waitpid(child, 0)[1]
    finally:
        os.close(reading)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status is None:
        return None if answer is None else answer.rstrip("\n")
    stopped_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGABRT
    # The system kills without a word what takes too much memory.
    return {signal.SIGXCPU: TOO_LONG, signal.SIGKILL: TOO_LARGE}.get(signal.Signals(stopped_by), STOPPED)


def _answer(reading: int) -> str | None:
    """A line, or what came before the end without one; None if nothing came in time."""
    text = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN | select.POLLHUP)
    end = time.monotonic() + PATIENCE
    while not text.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        piece = os.read(reading, 4096)
        if not piece:
            break
        text += piece
    return text.decode("utf-8", "replace")


def _be_the_copy(work: Callable[[], str], writing: int) -> None:
    """Do the work and end; never returns."""
    with suppress(BaseException):
        gc.disable()  # freeing what the process holds elsewhere, on an accelerator say, is not the copy's business
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_CPU, SECONDS)
        with suppress(OSError):
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
            _limit(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + MEMORY)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        os.write(writing, (_outcome(work).replace("\n", " ") + "\n").encode())
    os._exit(0)


def _limit(kind: int, wanted: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
