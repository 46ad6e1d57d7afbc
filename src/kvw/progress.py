"""How long work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with what is done and the total (0 if unknown), in examples, batches or steps."""


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
