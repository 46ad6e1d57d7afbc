"""What does not end, eats memory or calls itself is found out in a copy, and this process goes on."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from kvw.data import bounded
from kvw.data.bounded import TOO_DEEP, TOO_LARGE, TOO_LONG, trouble


def endless():
    while True:
        pass


def calls_itself():
    return calls_itself()


def large():
    return str(len(b"\0" * (4 * bounded.MEMORY)))


@pytest.fixture(params=[True, False])
def forks(request, monkeypatch):
    if request.param and not bounded.FORKS:
        pytest.skip("no copies of processes here")
    monkeypatch.setattr(bounded, "FORKS", request.param)
    return request.param


def test_work_that_ends(forks):
    assert trouble(lambda: "") == ""
    assert trouble(lambda: "it is wrong") == "it is wrong"
    assert trouble(lambda: [][1]) == ""


@pytest.mark.thorough
def test_work_without_end(forks, monkeypatch):
    monkeypatch.setattr(bounded, "SECONDS", 1)
    stop = threading.Event()
    # The thread of the second case has to end at some time; the copy of the first one never sees that.
    assert trouble(endless if forks else lambda: str(stop.wait())) == TOO_LONG
    stop.set()


def test_work_that_calls_itself(forks):
    assert trouble(calls_itself) == TOO_DEEP


@pytest.mark.skipif(not bounded.FORKS, reason="no limit on memory here")
def test_work_that_takes_much_memory_or_crashes():
    assert trouble(large) == TOO_LARGE
    assert trouble(lambda: str(os.kill(os.getpid(), signal.SIGTERM))) == bounded.STOPPED


@pytest.mark.skipif(not bounded.FORKS, reason="no copies of processes here")
def test_a_copy_that_gets_nowhere_is_not_taken_for_work_without_end(monkeypatch):
    here = os.getpid()
    monkeypatch.setattr(bounded, "PATIENCE", 0.2)

    def work():
        if os.getpid() != here:
            threading.Event().wait()
        return "told by the thread"

    assert trouble(work) == "told by the thread"


@pytest.mark.skipif(not bounded.FORKS, reason="no copies of processes here")
def test_nothing_is_left_behind():
    before, children = set(Path("/proc/self/fd").iterdir()), psutil.Process().children()
    for work in (large, calls_itself, lambda: ""):
        trouble(work)
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert psutil.Process().children() == children
