"""A queue of requests: order, locks, retries, dead letters, and what a killed worker leaves."""

from __future__ import annotations

import json
import os

import pytest

from kvw.errors import UserError
from kvw.progress import Silent
from kvw.runs import queue as queues
from kvw.runs.queue import Ended, Queue, Worker

ATTEMPTS = 3


class Heard(Silent):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


class Runs:
    """Ends as it is told, once each; what is not told ends well."""

    def __init__(self, **codes):
        self.codes = {name: list(some) for name, some in codes.items()}
        self.begun = []

    def __call__(self, file, lock):
        assert file.is_file()
        self.begun.append(file.stem)
        codes = self.codes.get(file.stem)
        return Ended(codes.pop(0) if codes else 0, "said\n")


@pytest.fixture
def queue(tmp_path):
    for name in ("c", "a", "b"):
        (tmp_path / f"{name}.toml").write_text(name)
    (tmp_path / "notes.txt").touch()
    return Queue(tmp_path)


def worked(queue, run, **more):
    reporter = Heard()
    return Worker(queue, run, ATTEMPTS, reporter, **more).work(), reporter.warnings


def told(tmp_path, place, name):
    assert (tmp_path / place / f"{name}.toml").read_text() == name[:1]
    return json.loads((tmp_path / place / f"{name}.json").read_text())


def test_requests_are_done_in_their_order_and_leave_the_queue(queue, tmp_path):
    run = Runs(b=[4])
    tally, warnings = worked(queue, run)
    assert run.begun == tally.done == ["a", "b", "c"]
    assert (tally.failed, tally.left, warnings) == ([], [], [])
    assert told(tmp_path, "done", "b").items() >= {"exit_code": 4, "attempts": 1}.items()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kvw-queue", "done", "failed", "notes.txt"]
    assert not any((tmp_path / ".kvw-queue").iterdir())


def test_an_order_says_which_requests_come_and_when(queue):
    run = Runs()
    tally, _ = worked(queue, run, order={"c": 1, "b": 2, "gone": 0})
    assert run.begun == ["c", "b"]
    assert tally.left == []
    assert queue.names() == ["a"]


def test_what_crashes_is_attempted_after_the_others_and_then_given_up(queue, tmp_path):
    run = Runs(a=[1, -9], b=[1, 3, -11])
    tally, warnings = worked(queue, run)
    assert run.begun == ["a", "b", "c", "a", "b", "a", "b"]
    assert tally.done == ["c", "a"]
    assert tally.failed == ["b"]
    assert told(tmp_path, "done", "a")["attempts"] == 3
    assert told(tmp_path, "failed", "b").items() >= {"exit_code": -11, "attempts": 3, "told": "said\n"}.items()
    assert "failed/b.json" in warnings[-1]


@pytest.mark.parametrize("code", [2, 5])
def test_what_no_attempt_can_help_is_given_up_at_once(queue, code):
    run = Runs(a=[code])
    tally, _ = worked(queue, run)
    assert run.begun == ["a", "b", "c"]
    assert tally.failed == ["a"]


def test_a_request_that_kills_its_worker_is_given_up(queue, tmp_path):
    class Killed(Exception):
        pass

    def run(file, lock):
        raise Killed

    for _ in range(ATTEMPTS):
        with pytest.raises(Killed):
            worked(queue, run, order={"a": 0})
    tally, _ = worked(queue, Runs(), order={"a": 0})
    assert tally.failed == ["a"]
    assert "worker" in told(tmp_path, "failed", "a")["told"]


def test_a_worker_that_is_told_to_end_takes_no_other_request(queue, tmp_path):
    stop, run = [], Runs()

    def once(file, lock):
        stop.append(True)
        return run(file, lock)

    tally, _ = worked(queue, once, stopping=lambda: bool(stop))
    assert tally.done == ["a"]
    assert tally.left == ["b", "c"]


def test_an_interruption_is_no_attempt_unless_nobody_asked_for_it(queue, tmp_path):
    stop = []

    def interrupted(file, lock):
        stop.append(True)
        return Ended(130)

    tally, _ = worked(queue, interrupted, stopping=lambda: bool(stop))
    assert tally.left == ["a", "b", "c"]
    assert queue.attempts("a") == 0
    tally, _ = worked(queue, Runs(a=[130, 130, 130]))
    assert tally.failed == ["a"]


def test_what_another_worker_has_taken_is_waited_for(queue, monkeypatch):
    taken = queue.taken("a")
    assert taken.__enter__() is not None
    with queue.taken("a") as lock:
        assert lock is None
    run, waits = Runs(), []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            taken.__exit__(None, None, None)

    monkeypatch.setattr(queues.time, "sleep", wait)
    tally, _ = worked(queue, run)
    assert run.begun == tally.done == ["b", "c", "a"]
    assert len(waits) == 2


def test_what_another_worker_has_done_meanwhile_is_not_done_again(queue, tmp_path):
    handle = os.open(tmp_path / "a.toml", os.O_RDWR)  # as if opened before the other one moved it
    queue.finish("a", "done")
    with queue.taken("a") as lock:
        assert lock is None
    os.close(handle)
    (tmp_path / "a.toml").write_text("a")
    with queue.taken("a") as lock:
        assert lock is not None
    queue.finish("a", "done")
    assert (tmp_path / "done/a-2.toml").is_file()  # a further request of the same name


def test_a_lock_lasts_as_long_as_a_process_that_inherited_it(queue):
    with queue.taken("a") as lock:
        child = os.dup(lock)  # what the run holds when its worker is killed
    with queue.taken("a") as again:
        assert again is None
    os.close(child)
    with queue.taken("a") as again:
        assert again is not None


def test_what_is_done_is_closed_before_it_leaves_and_again_after_a_kill(queue, tmp_path):
    closed = []

    def killed(name):
        closed.append(name)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worked(queue, Runs(), order={"a": 0}, close=killed)
    assert queue.names() == ["a", "b", "c"] or queue.names() == ["b", "c", "a"]
    tally, _ = worked(queue, Runs(), order={"a": 0}, close=closed.append)
    assert tally.done == ["a"]
    assert closed == ["a", "a"]


def test_what_cannot_be_closed_is_given_up_with_the_reason(queue, tmp_path):
    def refuse(name):
        raise UserError("Request 1 is closed.")

    tally, _ = worked(queue, Runs(), order={"a": 0}, close=refuse)
    assert tally.failed == ["a"]
    assert told(tmp_path, "failed", "a").items() >= {"exit_code": 2, "told": "Request 1 is closed."}.items()


def test_a_damaged_count_counts_as_none(queue, tmp_path):
    (tmp_path / ".kvw-queue/a.json").write_text("{")
    assert queue.attempts("a") == 0


def test_there_must_be_a_folder(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        Queue(tmp_path / "gone")
