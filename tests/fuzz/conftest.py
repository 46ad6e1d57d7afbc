"""Counts of what the readers were given, printed at the end."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from tests.fuzz.bounded import Outcome

OUTCOMES: dict[str, list[Outcome]] = defaultdict(list)


@pytest.fixture(scope="session")
def outcomes() -> dict[str, list[Outcome]]:
    """Outcomes so far by reader."""
    return OUTCOMES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reader."""
    if not OUTCOMES:
        return
    terminalreporter.section("inputs given to readers")
    for reader, found in sorted(OUTCOMES.items()):
        kinds = Counter(outcome.kind for outcome in found)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        largest = max(outcome.memory for outcome in found) / 1e6
        terminalreporter.write_line(f"{reader:24} {len(found):6} inputs: {counts}; largest memory {largest:.0f} MB")
