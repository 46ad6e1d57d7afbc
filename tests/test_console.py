"""What a log shows of long work."""

from __future__ import annotations

import re

import pytest

from kvw import console
from kvw.console import ConsoleReporter


@pytest.mark.parametrize(
    ("done", "total", "line"),
    [
        (3, 12, r"counting: 3 of 12, about \d+ s left"),
        (3, 0, "counting: 3 so far"),  # how many there will be is not known
        (12, 12, None),
        (0, 12, None),
    ],
)
def test_a_stage_tells_how_far_it_is(capsys, monkeypatch, done, total, line):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1.0)
    with ConsoleReporter().stage("counting") as progress:
        progress(done, total)
    *told, end = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"done counting \(\d+\.\d s\)", end)
    assert len(told) == (line is not None)
    assert line is None or re.fullmatch(line, told[0])


def test_it_does_not_tell_all_the_time(capsys):
    with ConsoleReporter().stage("counting") as progress:
        progress(3, 0)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_message_is_one_line_of_a_log(capsys):
    reporter = ConsoleReporter()
    long = "a folder with a long name " * 20
    reporter.note(long)
    reporter.warn(long)
    with reporter.stage(long):
        pass
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["note", "warning", "done"]
