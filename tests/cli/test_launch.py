"""Verbs that several launched processes work on together."""

from __future__ import annotations

import contextlib
import os
import signal

from kvw.cli import launch


def test_what_libraries_print_while_processes_connect_is_kept_out_of_the_output(monkeypatch, capfd):
    def join():
        os.write(1, b"[Gloo] Rank 0 is connected to 1 peer ranks.\n")

    @contextlib.contextmanager
    def together():
        os.write(1, b"[Gloo] again\n")
        yield

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(launch, "_join", join)
    monkeypatch.setattr("kvw.processes.together", together)
    launch.shared_by_all(lambda: print("{}", flush=True))()
    assert capfd.readouterr().out == "{}\n"
