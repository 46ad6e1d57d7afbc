"""A folder of requests that workers take one after the other; each is done once, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.exit_codes import ExitCode
from kvw.files import PRIVATE_FOLDER, explained, take_lock, write_text
from kvw.progress import Reporter

ENDING = ".toml"
DONE, FAILED, STATE = "done", "failed", ".kvw-queue"
"""Folders in that of the queue: what is done, what was given up, and how often each request that waits was begun."""
SECONDS_BETWEEN_LOOKS = 1.0
"""How long to wait before looking again at requests that other workers have taken."""
GOOD = (ExitCode.DONE, ExitCode.WARNED, ExitCode.CAME_BACK)
"""Codes of requests that are done: all is written."""
HOPELESS = (ExitCode.USER_ERROR, ExitCode.DAMAGING)
"""Codes of requests that no second attempt can help."""
STOPPED = (ExitCode.INTERRUPTED, -signal.SIGINT, -signal.SIGTERM)
"""Codes of runs that were told to end, if their worker was told so."""


@dataclass(frozen=True)
class Ended:
    """How a run of a request ended.

    Args:
        code: Its exit code; minus the number of the signal that killed it.
        told: The end of what it told.
    """

    code: int
    told: str = ""


@dataclass
class Tally:
    """What a worker did: names of requests."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class Queue:
    """The requests in a folder.

    Each is locked while it is worked at, by a lock on its file that ends with the last process that holds it. How often
    it was begun is written before it begins, so a request that kills its worker is given up like others.

    Args:
        folder: Files that end in ``.toml`` are requests.

    Raises:
        UserError: There is no such folder, or nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}.", do="give a folder with requests that end in .toml")
        self._folder = folder
        with explained(folder):
            for name in (DONE, FAILED, STATE):
                (folder / name).mkdir(PRIVATE_FOLDER, exist_ok=True)

    def names(self, order: Mapping[str, Any] | None = None) -> list[str]:
        """The requests that are not done, those that were begun least often first.

        Args:
            order: Which of them are meant, by the keys by which they are sorted; None for all, by their names.
        """
        names = [path.stem for path in self._folder.glob(f"*{ENDING}") if path.is_file()]
        keys = {name: name for name in names} if order is None else order
        return sorted((name for name in names if name in keys), key=lambda name: (self.attempts(name), keys[name]))

    def file(self, name: str) -> Path:
        """The file of a request."""
        return self._folder / f"{name}{ENDING}"

    def attempts(self, name: str) -> int:
        """How often a request was begun."""
        try:
            return int(json.loads(self._state(name).read_text("utf-8"))["attempts"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def count(self, name: str, attempts: int) -> None:
        """Write how often a request was begun."""
        write_text(self._state(name), json.dumps({"attempts": attempts}))

    @contextmanager
    def taken(self, name: str) -> Iterator[int | None]:
        """Take a request for the length of the block.

        Yields:
            The open file with the lock, which processes that inherit it hold too; None if somebody else has the
            request, or has done with it.
        """
        path = self.file(name)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            ours = take_lock(handle) and path.exists() and path.stat().st_ino == os.fstat(handle).st_ino
            yield handle if ours else None
        finally:
            os.close(handle)

    def finish(self, name: str, place: str, **said: Any) -> None:
        """Move a request that was taken to ``done`` or ``failed``, with a file that says how it ended."""
        target, number = self._folder / place / f"{name}{ENDING}", 1
        while target.exists():
            number += 1
            target = self._folder / place / f"{name}-{number}{ENDING}"
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(target.with_suffix(".json"), json.dumps({"at": at, **said}, indent=1) + "\n")
        self.file(name).rename(target)
        self._state(name).unlink(missing_ok=True)

    def _state(self, name: str) -> Path:
        return self._folder / STATE / f"{name}.json"


@dataclass
class Worker:
    """Does the requests of a queue until none is left; those that others have taken are waited for.

    Args:
        queue: The queue.
        run: Does what a file asks for, or finds that it is done; is also given the open file with its lock.
        attempts: How often a request is begun before it is given up.
        reporter: Told of each request.
        stopping: Whether no further request is to be begun.
        order: Which requests to do, by the keys by which they are sorted; None for all, by their names.
        close: Called with a request that is done, before it leaves the queue; again if a worker is killed in between.
    """

    queue: Queue
    run: Callable[[Path, int], Ended]
    attempts: int
    reporter: Reporter
    stopping: Callable[[], bool] = lambda: False
    order: Mapping[str, Any] | None = None
    close: Callable[[str], None] = lambda name: None

    def work(self) -> Tally:
        """Do them; returns what was done.

        Raises:
            UserError: The folder cannot be written.
        """
        tally = Tally()
        while not self.stopping() and (names := self.queue.names(self.order)):
            if not any(self._attempted(name, tally) for name in names):
                time.sleep(SECONDS_BETWEEN_LOOKS)  # others work at all that is left
        tally.left = self.queue.names(self.order)
        return tally

    def _attempted(self, name: str, tally: Tally) -> bool:
        """Attempt a request; False if somebody else has it."""
        with self.queue.taken(name) as lock:
            if lock is None:
                return False
            begun = self.queue.attempts(name)
            if begun >= self.attempts:
                self._give_up(name, begun, Ended(-9, "The last attempt ended with its worker."), tally)
                return True
            self.reporter.note(f"{name} begins" + (f"; it was begun {begun} times before." if begun else "."))
            self.queue.count(name, begun + 1)
            ended = self._closed(name, self.run(self.queue.file(name), lock))
            if ended.code in GOOD:
                self.queue.finish(name, DONE, exit_code=ended.code, attempts=begun + 1)
                tally.done.append(name)
                self.reporter.note(f"{name} is done.")
            elif self.stopping() and ended.code in STOPPED:
                self.queue.count(name, begun)
                self.reporter.note(f"{name} was interrupted, and waits.")
            elif ended.code in HOPELESS or begun + 1 >= self.attempts:
                self._give_up(name, begun + 1, ended, tally)
            else:
                self.reporter.warn(f"{name} ended with exit code {ended.code}, and is attempted again.")
            return True

    def _closed(self, name: str, ended: Ended) -> Ended:
        """How a request ended that is closed if it is done."""
        if ended.code in GOOD:
            try:
                self.close(name)
            except UserError as error:
                return Ended(ExitCode.USER_ERROR, str(error))
        return ended

    def _give_up(self, name: str, attempts: int, ended: Ended, tally: Tally) -> None:
        self.queue.finish(name, FAILED, exit_code=ended.code, attempts=attempts, told=ended.told)
        tally.failed.append(name)
        self.reporter.warn(
            f"{name} was given up with exit code {ended.code}, attempts: {attempts}. See {FAILED}/{name}.json."
        )
