"""What a run tells, as lines of JSON for programs that collect logs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from kvw.progress import Progress, Reporter, unheard

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
SECONDS_BETWEEN_LINES = 15.0
"""Between two lines about the progress of one stage; at level debug every step has a line."""


class JsonLines:
    """Writes a line to stderr for each event: ``at`` (UTC), ``level``, ``event``, ``text`` and what else belongs to it.

    Args:
        level: Events below it are left out.
    """

    def __init__(self, level: Level = "info") -> None:
        self._level = level

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        """Tell of a stage when it begins and when it ends, with its seconds, and of its progress."""
        start = last = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            due = now - last > SECONDS_BETWEEN_LINES
            if due or self._level == "debug":
                self.tell("info" if due else "debug", "progress", title, done=done, total=total or None)
                last = now

        self.tell("info", "begins", title)
        yield report
        self.tell("info", "done", title, seconds=round(time.monotonic() - start, 3))

    def note(self, text: str) -> None:
        """Tell a fact."""
        self.tell("info", "note", text)

    def warn(self, text: str) -> None:
        """Tell a warning."""
        self.tell("warning", "warning", text)

    def tell(self, level: Level, event: str, text: str, **more: Any) -> None:
        """Write one line, if the level asks for it."""
        if LEVELS.index(level) >= LEVELS.index(self._level):
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"at": at, "level": level, "event": event, "text": text, **more})
            print(line, file=sys.stderr, flush=True)


class OnlyFrom:
    """Passes on to another reporter what is at least as important as a level.

    Args:
        reporter: The other one.
        level: Events below it are left out.
    """

    def __init__(self, reporter: Reporter, level: Level) -> None:
        self._reporter = reporter
        self._level = LEVELS.index(level)

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        """Pass a stage on."""
        if self._level > LEVELS.index("info"):
            yield unheard
        else:
            with self._reporter.stage(title) as progress:
                yield progress

    def note(self, text: str) -> None:
        """Pass a note on."""
        if self._level <= LEVELS.index("info"):
            self._reporter.note(text)

    def warn(self, text: str) -> None:
        """Pass a warning on."""
        if self._level <= LEVELS.index("warning"):
            self._reporter.warn(text)
