"""How programs end, as scripts see it; docs/warnings.md has the same table."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from enum import IntEnum
from itertools import pairwise
from types import TracebackType
from typing import ParamSpec

from kvw.errors import Damaging, LostProcess, UserError
from kvw.quiet import quiet_libraries, quiet_torch

Given = ParamSpec("Given")
INTERRUPTED = "interrupted; give the same command again to go on"


class ExitCode(IntEnum):
    """Exit codes of ``kvw``."""

    DONE = 0
    FAULT = 1
    """A fault of kvw, with a traceback."""
    USER_ERROR = 2
    """The user must put something right."""
    LOST_PROCESS = 3
    """Another process of the run is gone."""
    WARNED = 4
    """Done, but with a warning, under ``--strict``; see :func:`kvw.cli.options.end_strictly`."""
    DAMAGING = 5
    """Nothing was written because no edit keeps what must stay."""
    NOT_VERIFIED = 6
    """Evidence or a register does not hold."""
    CAME_BACK = 7
    """Done, but an audit brings back more than was allowed (``--fail-above``)."""
    GIVEN_UP = 8
    """A worker has come to the end of its queue, and gave requests up."""
    INTERRUPTED = 130
    """Ctrl-C, or told to end."""


def code_of(error: UserError) -> ExitCode:
    """The code of a program that ends with an error."""
    if isinstance(error, LostProcess):
        return ExitCode.LOST_PROCESS
    return ExitCode.DAMAGING if isinstance(error, Damaging) else ExitCode.USER_ERROR


def program(main: Callable[Given, None]) -> Callable[Given, ExitCode]:
    """What ``python -m`` runs: it ends with a code, and after a mistake or Ctrl-C with a message on stderr."""

    @functools.wraps(main)
    def run(*arguments: Given.args, **keywords: Given.kwargs) -> ExitCode:
        if "transformers" in sys.modules:
            quiet_libraries()
        try:
            main(*arguments, **keywords)
        except UserError as error:
            print(f"error {error}", file=sys.stderr)
            return code_of(error)
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            return ExitCode.INTERRUPTED
        return ExitCode.DONE

    return run


def quiet_while_loading() -> None:
    """Let ``python -m kvw...`` import its libraries without their advice, and end with a message also if Ctrl-C comes
    meanwhile.

    That is before :func:`program` begins. Other programs that import kvw are left as they are.
    """
    package = __name__.partition(".")[0]
    if not any(flag == "-m" and name.partition(".")[0] == package for flag, name in pairwise(sys.orig_argv)):
        return
    quiet_torch()
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            usual(kind, error, traceback)
            return
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)

    sys.excepthook = hook
