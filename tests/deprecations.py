"""Our calls that a library calls deprecated; a test that makes one fails.

pytest's filters cannot see them. A library's decorator often attributes the warning to a module of its own or of torch,
which stands between it and the caller, and some libraries do not warn but log, once for each process.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock

OURS = ("kvw", "tests")
BETWEEN = ("torch", "functools", "contextlib", "unittest", "logging", "warnings")
"""Packages through which a call goes on its way from the caller to a library: hooks, decorators, contexts."""
LOGGING = ("transformers", "accelerate", "peft", "huggingface_hub")
THEIRS = ("generation-related arguments=({'guidance_scale'})",)
"""What transformers does to itself while it is called rightly: the ``generate`` of Janus calls that of its base so."""
CATEGORIES = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect, while the block runs, what libraries say of deprecated calls that kvw or a test made itself.

    What a library calls in another library, as peft does in transformers, is not ours.
    """
    found: list[str] = []
    warn, log = warnings.warn, logging.Logger.warning

    def see(message: object, frame: FrameType | None) -> None:
        if any(known in str(message) for known in THEIRS):
            return
        caller = _caller(frame)
        if caller is not None and (line := f"{caller}: {message}") not in found:
            found.append(line)

    def watched_warn(message: Any, category: Any = None, stacklevel: int = 1, *more: Any, **named: Any) -> None:
        kind = type(message) if isinstance(message, Warning) else category or UserWarning
        if issubclass(kind, CATEGORIES):
            see(message, sys._getframe(1))
        warn(message, category, stacklevel + 1, *more, **named)

    def watched_log(self: logging.Logger, message: object, *values: Any, **named: Any) -> None:
        if self.name.split(".")[0] in LOGGING and "deprecated" in str(message):
            see(message, sys._getframe(1))
        log(self, message, *values, **{**named, "stacklevel": named.get("stacklevel", 1) + 1})

    def watched_once(self: logging.Logger, message: object, *values: Any, **named: Any) -> None:
        self.warning(message, *values, **named)  # type: ignore[arg-type]

    with (
        mock.patch.object(warnings, "warn", watched_warn),
        mock.patch.object(logging.Logger, "warning", watched_log),
        mock.patch.object(logging.Logger, "warning_once", watched_once, create=True),
    ):
        yield found


def _caller(frame: FrameType | None) -> str | None:
    """Where the library that warns was called, if kvw or a test called it; ``frame`` is that of its warning."""
    library = None
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).split(".")[0]
        here = frame.f_globals.get("__file__") == __file__
        if package in OURS and not here:
            return f"{frame.f_globals['__name__']}:{frame.f_lineno}" if library else None
        if not here and package not in BETWEEN:
            if library not in (None, package):
                return None
            library = package
        frame = frame.f_back
    return None
