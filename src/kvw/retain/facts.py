"""Questions of general knowledge of all kinds, written for kvw with a gap into which the model puts names itself."""

from __future__ import annotations

import re
from pathlib import Path

from kvw.evaluation.answers import kept_answers
from kvw.measuring.in_memory import InMemory
from kvw.progress import Progress
from kvw.retain.gaps import Gap
from kvw.retain.proposals import LONGEST_NAME, proposed_names
from kvw.retain.question import Question

GAPS = Path(__file__).parent / "gaps.txt"
"""One question a line, with one name in braces where the gap is."""
NAMES_OF_A_GAP = 4
"""Names that the model puts into each gap, beside the one that the file has there."""
LINE = re.compile(r"([^{}]*)\{([^{}]+)\}([^{}]*)")


def fact_gaps() -> list[Gap]:
    """The shipped questions, in the order of the file."""
    lines = map(LINE.fullmatch, GAPS.read_text("utf-8").splitlines())
    return [Gap(before=line[1], after=line[3], shown=line[2]) for line in lines if line]


def fact_questions(loaded: InMemory, progress: Progress | None = None) -> list[Question]:
    """The shipped questions, each about the name in the file and about those that the model puts there.

    The names depend on nothing but the model and are kept in the cache directory, so that a second call asks for none.
    Several processes keep nothing.

    Args:
        loaded: The model, without any edit.
        progress: Called with (gaps done, gaps in all).

    Returns:
        The questions; the name is the subject in their metadata.
    """
    gaps = fact_gaps()
    with kept_answers(loaded, [], LONGEST_NAME) as journal:
        proposed = proposed_names(loaded, gaps, NAMES_OF_A_GAP, journal=journal, progress=progress)
    asked = [(gap, name) for gap, names in zip(gaps, proposed, strict=True) for name in (gap.shown, *names)]
    return [
        Question(gap.filled(name), (), f"facts:{number}", {"source": "facts", "subject": name})
        for number, (gap, name) in enumerate(asked, start=1)
    ]
