"""What was found about the data of a request: a fact, what follows from it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvw.progress import Reporter

EXAMPLES_SHOWN = 3
LONGEST_SHOWN = 80
NOTHING_TO_DO = "Nothing needs to be done"


@dataclass(frozen=True)
class Finding:
    """Something about the data that the user should know.

    Args:
        name: What was looked at, in a word or two.
        found: The fact, in numbers and names of files: no question and no answer, since warnings go into records.
        then: What follows from it, as a sentence without its full stop.
        do: What to do, as a sentence without its full stop.
        shown: Some of the examples, only for the terminal.
        is_warning: Whether the result is in danger; otherwise it is a note.
    """

    name: str
    found: str
    then: str
    do: str
    shown: tuple[str, ...] = ()
    is_warning: bool = True

    def __str__(self) -> str:
        return f"{self.found}: {self.then}. {self.do}."


def tell(findings: Iterable[Finding], reporter: Reporter) -> None:
    """Tell findings: warnings, and notes with examples."""
    for finding in findings:
        (reporter.warn if finding.is_warning else reporter.note)(str(finding))
        for line in finding.shown[:EXAMPLES_SHOWN]:
            reporter.note(line)


def quoted(text: str) -> str:
    """A text of the user's in one line, shortened."""
    one_line = " ".join(text.split())
    return repr(one_line if len(one_line) <= LONGEST_SHOWN else f"{one_line[:LONGEST_SHOWN]} ...")
