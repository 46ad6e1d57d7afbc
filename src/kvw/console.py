"""What the user sees while work goes on, all of it on stderr. Only results go to stdout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kvw.progress import Progress as ProgressFunction
from kvw.progress import Reporter

SECONDS_BETWEEN_LINES = 15.0
_log: ContextVar[Reporter | None] = ContextVar("log", default=None)


@contextmanager
def logging_to(reporter: Reporter) -> Iterator[None]:
    """Let commands in the block tell another reporter what they would show on the console."""
    token = _log.set(reporter)
    try:
        yield
    finally:
        _log.reset(token)


def console_reporter() -> Reporter:
    """What a command tells of its work to."""
    return _log.get() or ConsoleReporter()


class ConsoleReporter:
    """Bars with the remaining time on a terminal; elsewhere plain lines, one a message, so logs can be searched."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False)

    @contextmanager
    def stage(self, title: str) -> Iterator[ProgressFunction]:
        """Show one stage."""
        start = time.monotonic()
        with self._bar(title) if self._console.is_terminal else self._lines(title) as report:
            yield report
        self._print(f"[green]done[/green] {title} ({time.monotonic() - start:.1f} s)")

    def note(self, text: str) -> None:
        """Print a fact."""
        self._print(f"[cyan]note[/cyan] {escape(text)}")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._print(f"[yellow]warning[/yellow] {escape(text)}")

    def _print(self, message: str) -> None:
        self._console.print(message, soft_wrap=not self._console.is_terminal)

    @contextmanager
    def _bar(self, title: str) -> Iterator[ProgressFunction]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total or None)

    @contextmanager
    def _lines(self, title: str) -> Iterator[ProgressFunction]:
        start = last = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if not done or (total and done >= total) or now - last <= SECONDS_BETWEEN_LINES:
                return
            left = f" of {total}, about {(now - start) / done * (total - done):.0f} s left" if total else " so far"
            self._print(f"{title}: {done}{left}")
            last = now

        yield report
