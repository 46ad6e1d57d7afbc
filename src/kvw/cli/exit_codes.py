"""How the program ends, as scripts see it; docs/warnings.md has the same table."""

from __future__ import annotations

from enum import IntEnum

from kvw.errors import Damaging, LostProcess, UserError


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
    INTERRUPTED = 130
    """Ctrl-C, or told to end."""


def code_of(error: UserError) -> ExitCode:
    """The exit code of a mistake."""
    if isinstance(error, LostProcess):
        return ExitCode.LOST_PROCESS
    return ExitCode.DAMAGING if isinstance(error, Damaging) else ExitCode.USER_ERROR
