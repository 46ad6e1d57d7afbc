"""Ctrl-C in the middle of measuring: exit code 130, and the next run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.program import run

from kvw.measuring import examples
from kvw.measuring.statistics import Statistics

# The real program, slowed down and with small batches so that there is a middle to interrupt.
SLOW = """
import signal
import time

import pytest
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
import kvw.measuring.examples as examples
from kvw.cli import main

plain = examples.run_batch
def slow(*arguments):
    time.sleep(0.2)
    plain(*arguments)
examples.run_batch = slow
examples.token_budget = lambda device: 30
main({arguments!r})
"""


def program(arguments):
    code = SLOW.format(arguments=arguments)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads of a tiny model only wait for each other
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.thorough
def test_an_interrupted_measurement_exits_130_and_goes_on(saved, tmp_path, monkeypatch, capsys):
    rows = [{"question": f"Who is {index}?", "answer": f"Number {index}"} for index in range(40)]
    (tmp_path / "retain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["measure", str(saved["llava"]), "--data", str(tmp_path / "retain.jsonl")]

    interrupted = program([*arguments, "--out", str(tmp_path / "a.safetensors")])
    for line in interrupted.stderr:
        if "checking the data" in line:
            time.sleep(1.0)
            interrupted.send_signal(signal.SIGINT)
            break
    rest = interrupted.stderr.read()
    assert interrupted.wait(timeout=300) == 130, rest
    assert "goes on from what was kept" in " ".join(rest.split())
    assert "Traceback" not in rest
    assert not (tmp_path / "a.safetensors").exists()

    monkeypatch.setattr(examples, "token_budget", lambda device: 30)
    assert run(*arguments, "--out", tmp_path / "a.safetensors") == 0
    assert "Went on with an interrupted pass after" in " ".join(capsys.readouterr().err.split())

    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "another cache"))
    assert run(*arguments, "--out", tmp_path / "b.safetensors") == 0
    assert "Went on" not in capsys.readouterr().err
    first, second = (Statistics.load(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert all((first.sums[key] == second.sums[key]).all() for key in second.sums)
    assert first.counts == second.counts
