"""Logs as lines of JSON, and levels."""

from __future__ import annotations

import json

import pytest

from kvw import log_lines
from kvw.console import ConsoleReporter
from kvw.log_lines import LEVELS, JsonLines, OnlyFrom


def work(reporter):
    with reporter.stage("counting") as progress:
        progress(1, 2)
        progress(2, 0)
    reporter.note("a fact")
    reporter.warn("danger")


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_event_is_a_line_with_its_time(capsys):
    work(JsonLines("debug"))
    found = lines(capsys)
    assert [(one["level"], one["event"], one["text"]) for one in found] == [
        ("info", "begins", "counting"),
        ("debug", "progress", "counting"),
        ("debug", "progress", "counting"),
        ("info", "done", "counting"),
        ("info", "note", "a fact"),
        ("warning", "warning", "danger"),
    ]
    assert [(one["done"], one["total"]) for one in found[1:3]] == [(1, 2), (2, None)]
    assert all(one["at"].endswith("+00:00") for one in found)
    assert found[3]["seconds"] >= 0


def test_a_long_stage_tells_of_its_progress(capsys, monkeypatch):
    work(JsonLines())
    assert "progress" not in {one["event"] for one in lines(capsys)}
    monkeypatch.setattr(log_lines, "SECONDS_BETWEEN_LINES", -1)
    work(JsonLines())
    assert [one["level"] for one in lines(capsys) if one["event"] == "progress"] == ["info", "info"]


@pytest.mark.parametrize(("level", "events"), [("info", 4), ("warning", 1), ("error", 0)])
def test_levels_leave_out_what_lies_below_them(capsys, level, events):
    work(JsonLines(level))
    assert [LEVELS.index(one["level"]) >= LEVELS.index(level) for one in lines(capsys)] == [True] * events
    work(OnlyFrom(ConsoleReporter(), level))
    told = capsys.readouterr().err
    assert ["counting" in told, "a fact" in told, "danger" in told] == [events > 1, events > 1, events > 0]
