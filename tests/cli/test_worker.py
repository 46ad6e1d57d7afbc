"""``kvw worker``: a queue with real runs, signals, kills and the register."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.cli.test_run import toml
from tests.program import assert_refused, run

from kvw.exit_codes import ExitCode
from kvw.register import requests
from kvw.register.chain import begin, read
from kvw.runs.queue import Ended

Child = sys.modules["kvw.cli.worker"].Child


def write_request(folder, name, model, **more):
    """A request that is quick, beside its data."""
    for part in ("forget", "retain"):
        rows = [{"question": f"Who is {n}?", "answer": f"{part} {name} {n}"} for n in range(2)]
        (folder / f"{name}.{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"forget": [f"{name}.forget.jsonl"], "retain": f"{name}.retain.jsonl", "out": f"out-{name}"}
    quick = {"max_new_tokens": 2, "no_model": True, "method": "kvw", "gamma": 1, "write_damaged": True}
    (folder / f"{name}.toml").write_text(toml(command="erase", model=model, **files, **quick, **more))


@pytest.mark.thorough
def test_a_mistake_is_given_up_with_its_message(tmp_path, capfd):
    (tmp_path / "a.toml").write_text("command = 'erase'\nmodel = './nowhere'\nforget = 'x.jsonl'\nout = 'o'\n")
    assert run("worker", tmp_path) == ExitCode.GIVEN_UP
    said = json.loads((tmp_path / "failed/a.json").read_text())
    assert (said["exit_code"], said["attempts"]) == (2, 1)
    assert "nowhere" in said["told"]
    assert "nowhere" in capfd.readouterr().err  # passed on as well
    assert run("worker", tmp_path, "--json") == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert lines[-1]["text"] == "0 requests are done, 0 were given up, 0 are left."


def test_mistakes_of_the_command(tmp_path, capsys):
    assert_refused(capsys, run("worker", tmp_path / "gone"), "no folder")
    assert_refused(capsys, run("worker", tmp_path, "--retries", -1), "--retries")
    assert_refused(capsys, run("worker", tmp_path, "--register", tmp_path / "gone.sqlite"), "register")


@pytest.mark.parametrize(("options", "attempts"), [([], 3), (["--retries", "0"], 1)])
def test_retries_are_as_many_as_asked(tmp_path, monkeypatch, options, attempts):
    (tmp_path / "a.toml").touch()
    commands = []
    monkeypatch.setattr(Child, "run", lambda child, command, lock: commands.append(command) or Ended(1, "crash"))
    assert run("worker", tmp_path, *options, "--log-level", "error") == ExitCode.GIVEN_UP
    assert len(commands) == attempts
    assert commands[0][1:] == ["-m", "kvw", "run", str(tmp_path / "a.toml"), "--log-level", "error"]


PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
print("begun", file=sys.stderr, flush=True)
for _ in range(600):
    time.sleep(0.05)
    if sys.argv[1] == "short":
        break
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("length", "signals", "code"),
    [("short", [signal.SIGTERM], 0), ("long", [signal.SIGTERM, signal.SIGTERM], 130), ("long", [signal.SIGINT], 130)],
)
def test_signals_let_the_run_end_or_interrupt_it(tmp_path, capfd, length, signals, code):
    child, began = Child(), time.monotonic()

    def send():
        while child._process is None or "begun" not in capfd.readouterr().err:
            time.sleep(0.01)
        for number in signals:
            os.kill(os.getpid(), number)
            time.sleep(0.2)

    sender = threading.Thread(target=send)
    with (tmp_path / "lock").open("w") as lock, child.told_by_signals():
        sender.start()
        ended = child.run([sys.executable, "-c", PROGRAM, length], lock.fileno())
        sender.join()
    assert ended == Ended(code, "begun\n")
    assert child.stopping
    assert time.monotonic() - began < 30  # it was not waited for to its end


@pytest.mark.thorough
def test_requests_of_the_register_are_linked_and_closed(saved, tmp_path, monkeypatch, capsys):
    register, folder = tmp_path / "register.sqlite", tmp_path / "queue"
    folder.mkdir()
    begin(register)
    for who, due in (("case-1", "2026-03-01"), ("case-2", "2026-02-01"), ("case-3", "2026-01-15")):
        requests.add(register, {"kind": "request", "who": who, "received": "2026-01-01", "due": due})
    for name in ("case-1", "case-2", "other"):
        write_request(folder, name, saved["llava"])
    begun = []

    def inside(child, command, lock):
        begun.append(Path(command[4]).stem)
        return Ended(run(*command[3:]))

    monkeypatch.setattr(Child, "run", inside)
    assert run("worker", folder, "--register", register) == 0
    assert begun == ["case-2", "case-1"]  # the one that is due first
    told = " ".join(capsys.readouterr().err.split())
    assert "Request 3 of the register, case-3, has no file" in told
    assert "other is no open request of the register" in told
    assert (folder / "other.toml").is_file()
    first, second, third = requests.requests(read(register))
    assert [first.outcome, second.outcome, third.outcome] == ["done", "done", ""]
    assert len(first.runs) == len(second.runs) == 1

    # A worker that was killed after it had closed the request: nothing is entered again.
    (folder / "done/case-1.toml").rename(folder / "case-1.toml")
    entries = len(read(register))
    assert run("worker", folder, "--register", register) == 0
    assert (folder / "done/case-1.toml").is_file()
    assert len(read(register)) == entries
    # The same name, closed long ago, with another run: it is not the worker's business.
    write_request(folder, "case-2", saved["llava"])
    (folder / "case-2.toml").write_text((folder / "case-2.toml").read_text().replace("out-case-2", "elsewhere"))
    assert run("worker", folder, "--register", register) == 0
    assert begun == ["case-2", "case-1", "case-1"]


def started(folder, log):
    with log.open("a") as errors:
        return subprocess.Popen([sys.executable, "-m", "kvw", "worker", str(folder)], stderr=errors, text=True)


def wait_for(log, text):
    while text not in log.read_text():
        time.sleep(0.05)


@pytest.mark.slow
def test_a_queue_of_twelve_with_kills_in_the_middle_does_nothing_twice(saved, tmp_path):
    folder, log = tmp_path / "queue", tmp_path / "log"
    folder.mkdir()
    log.touch()
    names = [f"r{number:02}" for number in range(12)]
    for name in names:
        write_request(folder, name, saved["llava"])

    def results():
        files = sorted(folder.glob("out-*/run.json"))
        return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    worker = started(folder, log)  # killed alone: its run goes on without it, and keeps its lock
    wait_for(log, "r03 begins")
    time.sleep(2)
    worker.kill()
    worker.wait()
    before = results()
    worker = started(folder, log)  # killed with its run, as a cluster does it that takes the machine away
    wait_for(log, "r07 begins")
    time.sleep(3)
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    worker.kill()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    worker.wait()
    between = results()
    assert before.items() <= between.items()
    worker = started(folder, log)
    assert worker.wait() == 0
    after = results()
    assert between.items() <= after.items()
    assert len(after) == 12
    assert sorted(path.stem for path in (folder / "done").glob("*.toml")) == names
    assert not any((folder / "failed").iterdir())
    told = log.read_text()
    done = re.findall(r"note (r\d\d) is done\.", told)
    assert sorted(done) == names
    begun = {name: len(re.findall(rf"note {name} begins", told)) for name in names}
    attempts = {name: json.loads((folder / f"done/{name}.json").read_text())["attempts"] for name in names}
    assert begun == attempts
    print({"begun": begun, "there at the kills": [len(before), len(between)], "told": told.count("is done already")})
    assert sum(begun.values()) <= 14  # each kill costs one more
