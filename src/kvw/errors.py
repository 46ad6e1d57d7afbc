"""The exception for "you must fix this", and those of its kind that are treated differently."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something the user can put right.

    The command line prints it without a traceback and exits with code 2.

    Args:
        what: What happened, as a sentence.
        found: What was there instead of what was needed; may be empty.
        do: What to do about it; may be empty.
    """

    def __init__(self, what: str, *, found: str = "", do: str = "") -> None:
        self.what = what
        self.found = found
        self.do = do
        lines = [what]
        if found:
            lines.append(f"found: {found}")
        if do:
            lines.append(f"do: {do}")
        super().__init__("\n".join(lines))


class Unreadable(UserError):
    """A file that is read for a long while could not be read to its end; what was made of it so far is good."""


class Unwritable(UserError):
    """The disk is full, or what was made cannot be written where it is to be."""


class Damaging(UserError):
    """No edit is written, because none does what was asked without losing what must stay.

    The command line prints it without a traceback and exits with code 5.
    """


class LostProcess(UserError):
    """A process of a run on several processes is gone or does not answer.

    The command line prints it without a traceback and exits with code 3.

    Args:
        what: What happened, as a sentence.
        found: What the connection reported; may be empty.
        do: What to do about it; may be empty.
        gone: The processes that are known to have ended.
    """

    def __init__(self, what: str, *, found: str = "", do: str = "", gone: Sequence[int] = ()) -> None:
        super().__init__(what, found=found, do=do)
        self.gone = tuple(gone)
