"""The program, run in the process of the test."""

from __future__ import annotations

from kvw.cli import main


def run(*arguments):
    """Run the program in this process; returns the exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def assert_refused(capsys, code, *words):
    error = capsys.readouterr().err
    assert code == 2, error
    for word in words:
        assert word in error, error
    assert "Traceback" not in error
