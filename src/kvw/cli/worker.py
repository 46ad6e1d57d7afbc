"""``kvw worker``."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter

from kvw.cli.request_file import read_request_file, refused
from kvw.console import ConsoleReporter
from kvw.errors import UserError
from kvw.exit_codes import ExitCode
from kvw.log_lines import JsonLines, Level, OnlyFrom

if TYPE_CHECKING:
    from kvw.progress import Reporter
    from kvw.register.requests import Request
    from kvw.runs.queue import Ended, Tally

LINES_KEPT = 20
"""Of what a request told that is given up."""


def worker(
    folder: Annotated[Path, Parameter(help="Folder of requests (.toml), as kvw run takes them.")],
    *,
    register: Annotated[
        Path | None,
        Parameter(
            help="Take the open requests of this register, those that are due first; the files are called by the "
            "pseudonyms. What is done is linked and closed there."
        ),
    ] = None,
    retries: Annotated[int, Parameter(help="How often a run that crashed or was killed is begun again.")] = 2,
    json: Annotated[bool, Parameter(name="--json", negative="", help="Log lines of JSON.")] = False,
    log_level: Annotated[Level, Parameter(help="The least that is logged.")] = "info",
) -> None:
    """Do the requests in a folder one after the other, each in a process of its own, until none is left.

    What is done moves to FOLDER/done, what is given up to FOLDER/failed with the reason. Several workers can share a
    folder. SIGTERM lets the run at hand end, and takes no other; a second one, or Ctrl-C, interrupts it.
    """
    if retries < 0:
        raise UserError("--retries cannot be negative.", found=str(retries), do="0 attempts each request once")

    from kvw.runs.queue import Queue, Worker

    queue = Queue(folder)
    reporter: Reporter = JsonLines(log_level) if json else OnlyFrom(ConsoleReporter(), log_level)
    options = [*(["--json"] if json else []), "--log-level", log_level]
    child = Child()
    order, close = _of_the_register(folder, register, reporter) if register else (None, lambda name: None)

    def run(file: Path, lock: int) -> Ended:
        return child.run([sys.executable, "-m", "kvw", "run", str(file), *options], lock)

    with child.told_by_signals():
        tally = Worker(queue, run, retries + 1, reporter, lambda: child.stopping, order, close).work()
    _end(tally, reporter)


class Child:
    """The run at hand, and what the signals of the worker do to it.

    Attributes:
        stopping: Whether the worker was told to end.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._process: subprocess.Popen[str] | None = None

    @contextmanager
    def told_by_signals(self) -> Iterator[None]:
        """Let SIGTERM and Ctrl-C tell the worker to end, for the length of the block."""
        before = {number: signal.signal(number, self._told) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, command: list[str], lock: int) -> Ended:
        """Run a command that inherits a lock, and pass on what it tells."""
        from kvw.runs.queue import Ended

        told: deque[str] = deque(maxlen=LINES_KEPT)
        # A session of its own: Ctrl-C reaches the worker alone, which passes it on once.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=(lock,),
            start_new_session=True,
        ) as self._process:
            assert self._process.stderr is not None
            for line in self._process.stderr:
                sys.stderr.write(line)
                sys.stderr.flush()
                told.append(line)
        return Ended(self._process.returncode, "".join(told))

    def _told(self, number: int, frame: FrameType | None) -> None:
        if (self.stopping or number == signal.SIGINT) and self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
        self.stopping = True


def _of_the_register(
    folder: Path, register: Path, reporter: Reporter
) -> tuple[dict[str, tuple[str, int]], Callable[[str], None]]:
    """The requests that a register has open, those that are due first, and how one of them is closed.

    Raises:
        UserError: There is no such register.
    """
    from kvw.register.chain import read
    from kvw.register.requests import requests
    from kvw.runs.queue import ENDING

    def file(who: str) -> Path:
        return folder / f"{who}{ENDING}"

    entered = {one.who: one for one in requests(read(register)) if not one.outcome or _was_left(one, file(one.who))}
    files = {path.stem for path in folder.glob(f"*{ENDING}")}
    for who in sorted(entered.keys() - files):
        reporter.warn(f"Request {entered[who].number} of the register, {who}, has no file in {folder}: it stays open.")
    for name in sorted(files - entered.keys()):
        reporter.warn(f"{name} is no open request of the register, and is left where it is.")
    order = {who: (one.due, one.number) for who, one in entered.items()}
    return order, lambda who: _close(register, entered[who].number, file(who))


def _was_left(request: Request, file: Path) -> bool:
    """Whether a worker has closed a request and was killed before it could take the file away."""
    from kvw.register.requests import linked

    if request.outcome != "done" or not file.is_file():
        return False
    with suppress(UserError):
        return linked(_out(file))["evidence"] in [one["evidence"] for one in request.runs]
    return False


def _close(register: Path, number: int, file: Path) -> None:
    """Enter the run of a request and close it, unless a worker that was killed has done so."""
    from kvw.register.chain import read
    from kvw.register.requests import close, link, linked, numbered, requests

    run, entered = _out(file), numbered(requests(read(register)), number)
    if linked(run)["evidence"] not in [one["evidence"] for one in entered.runs]:
        link(register, number, run)
    if not entered.outcome:
        close(register, number, "done")


def _out(file: Path) -> Path:
    """The output that a request names."""
    from kvw.cli import app

    asked = read_request_file(file)
    try:
        _, bound, _ = app.parse_args(asked.words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise refused(asked, error) from error
    return file.parent / str(bound.arguments["asked"].out)


def _end(tally: Tally, reporter: Reporter) -> None:
    reporter.note(
        f"{len(tally.done)} requests are done, {len(tally.failed)} were given up, {len(tally.left)} are left."
    )
    if tally.left:
        sys.exit(ExitCode.INTERRUPTED)
    if tally.failed:
        sys.exit(ExitCode.GIVEN_UP)
