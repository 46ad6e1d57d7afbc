"""Ctrl-C in the middle of measuring: exit code 130, and the next run goes on."""

from __future__ import annotations

import json
import signal
import time

import pytest
from tests.program import run
from tests.several_processes import beside

from kvw.cli import main
from kvw.measuring import examples
from kvw.measuring.statistics import Statistics


def slow(*arguments):
    """The program, slowed down and with small batches so that there is a middle to interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    plain = examples.run_batch

    def run_batch(*some):
        time.sleep(0.2)
        plain(*some)

    examples.run_batch = run_batch
    examples.token_budget = lambda device: 30
    main(list(arguments))


@pytest.mark.thorough
def test_an_interrupted_measurement_exits_130_and_goes_on(saved, tmp_path, monkeypatch, capsys):
    rows = [{"question": f"Who is {index}?", "answer": f"Number {index}"} for index in range(40)]
    (tmp_path / "retain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["measure", str(saved["llava"]), "--data", str(tmp_path / "retain.jsonl")]

    with beside(slow, *arguments, "--out", str(tmp_path / "a.safetensors"), folder=tmp_path / "logs") as started:
        started.until("checking the data", "errors")
        time.sleep(1.0)
        ended = started.end(signal.SIGINT)
    rest = ended.errors
    assert ended.code == 130, rest
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
