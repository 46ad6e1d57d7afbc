"""The exit codes of the program and the table of them in the documentation."""

from __future__ import annotations

import ast
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.program import run

import kvw
from kvw.cli import main
from kvw.errors import Damaging, LostProcess, UserError
from kvw.exit_codes import INTERRUPTED, ExitCode, program, quiet_while_loading

ROOT = Path(__file__).parents[1]
SOURCE = Path(kvw.__file__).parent


def test_the_table_has_every_code_and_no_other():
    table = (ROOT / "docs/warnings.md").read_text().partition("\n\n`kvw serve`")[0]
    codes = re.findall(r"^\| (\d+) \|", table, re.MULTILINE)
    assert codes == [str(int(code)) for code in ExitCode]


def test_the_program_ends_with_these_codes_only():
    calls = [
        (file.name, call.args[0])
        for file in (SOURCE / "cli").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("sys.exit", "exit", "quit", "os._exit")
    ]
    assert len(calls) >= 6
    said = {ast.unparse(code) for _, code in calls}
    assert said <= {"code_of(error)", "error.code", *(f"ExitCode.{code.name}" for code in ExitCode)}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), ExitCode.USER_ERROR),
        (LostProcess("x"), ExitCode.LOST_PROCESS),
        (Damaging("x"), ExitCode.DAMAGING),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_errors_end_with_their_code(monkeypatch, error, code):
    def fail():
        raise error

    monkeypatch.setattr("kvw.cache.clear", fail)
    assert run("cache", "clear") == code


def test_what_went_well_and_what_is_no_command(capsys):
    assert run("methods") == ExitCode.DONE
    assert run("methods", "--no-such-option") == ExitCode.USER_ERROR
    capsys.readouterr()


def test_a_fault_of_kvw_keeps_its_traceback(monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr("kvw.cache.clear", fail)
    with pytest.raises(ZeroDivisionError):  # which Python turns into exit code 1
        main(["cache", "clear"])


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (None, ExitCode.DONE, ""),
        (UserError("It is wrong.", do="put it right"), ExitCode.USER_ERROR, "error It is wrong.\ndo: put it right\n"),
        (Damaging("It loses all."), ExitCode.DAMAGING, "error It loses all.\n"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted; give the same command again to go on\n"),
    ],
    ids=str,
)
def test_a_program_ends_with_the_same_codes_and_one_message(capsys, error, code, words):
    @program
    def main():
        if error is not None:
            raise error

    assert main() == code
    assert capsys.readouterr() == ("", words)


CTRL_C = """
import os, signal, sys
class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.exceptions":  # far from the end
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
"""Sends the signal at the same moment of the imports, however busy the machine is. What a shell starts in the
background ignores it, and so would all that this starts."""


def test_ctrl_c_while_a_program_imports_its_libraries_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CTRL_C)
    places = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    line = [sys.executable, "-m", "kvw.proving", "table", "--half", "choosing", "--out", "x"]
    ended = subprocess.run(
        line, env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == ExitCode.INTERRUPTED
    assert (ended.stdout, ended.stderr) == ("", f"{INTERRUPTED}\n")


def test_other_programs_keep_their_traceback():
    before = sys.excepthook
    quiet_while_loading()
    assert sys.excepthook is before


def test_programs_of_python_m_do_not_show_what_torch_tells_its_developers(monkeypatch: pytest.MonkeyPatch):
    logger = logging.getLogger("torch.utils._pytree")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    quiet_while_loading()
    assert logger.level == logging.WARNING  # another program's own affair
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "kvw.proving", "run"])
    quiet_while_loading()
    assert logger.level == logging.ERROR


def test_whatever_python_m_runs_is_such_a_program():
    ways_in = (file for file in SOURCE.rglob("*.py") if 'if __name__ == "__main__":' in file.read_text())
    files = [file for file in ways_in if file.parent != SOURCE or file.name != "__main__.py"]  # that is kvw itself
    assert len(files) >= 8
    for file in files:
        body = ast.parse(file.read_text()).body
        assert "sys.exit(main(" in ast.unparse(body[-1]), file
        mains = [one for one in body if isinstance(one, ast.FunctionDef) and one.name == "main"]
        assert [ast.unparse(one) for one in mains[0].decorator_list] == ["program"], file
