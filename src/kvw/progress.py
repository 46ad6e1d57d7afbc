"""How long work tells what it is doing."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from kvw.cache import cache_directory

Progress = Callable[[int, int], None]
"""Called with what is done and the total (0 if unknown), in examples, batches or steps."""


def unheard(done: int, total: int) -> None:
    """The progress of what nobody watches."""


def warn(text: str) -> None:
    """Tell a Python program what its user should look at."""
    depth, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("kvw."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=depth)  # the line of the caller's own program


class Reporter(Protocol):
    """What a run needs of whoever watches it."""

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        """A stage of the run; its block gets a function to report progress with."""

    def note(self, text: str) -> None:
        """Say a fact worth knowing."""

    def warn(self, text: str) -> None:
        """Say something that the user should look at."""


class Silent:
    """Says nothing."""

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        """Ignore the progress."""
        return nullcontext(lambda done, total: None)

    def note(self, text: str) -> None:
        """Ignore the note."""

    def warn(self, text: str) -> None:
        """Ignore the warning."""


SILENT = Silent()


class Warns(Silent):
    """Says warnings as Python does, and nothing else."""

    def warn(self, text: str) -> None:
        """Warn."""
        warn(text)


WARNING = Warns()


class Remembering:
    """Passes everything on to another reporter and remembers the warnings, so that a record holds what was said.

    Attributes:
        warnings: What was warned of, in order.

    Args:
        reporter: The other one.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.warnings: list[str] = []

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        """Pass a stage on."""
        return self._reporter.stage(title)

    def note(self, text: str) -> None:
        """Pass a note on."""
        self._reporter.note(text)

    def warn(self, text: str) -> None:
        """Pass a warning on and remember it."""
        self._reporter.warn(text)
        self.warnings.append(text)


@contextmanager
def remembering(reporter: Reporter) -> Iterator[Remembering]:
    """Remember the warnings of a run: those of its reporter, and those that kvw's modules log in the block.

    Yields:
        What to report to.
    """
    found, logger = Remembering(reporter), logging.getLogger("kvw")
    handler, onwards = _Handler(found), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # they are said once
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = onwards


class _Handler(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        # Records name no place of this machine.
        text = record.getMessage().replace(str(cache_directory()), "$KVW_CACHE")
        self._reporter.warn(text[:1].upper() + text[1:])
