"""``kvw run``: a run as a file, which is done once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.test_command import GIVEN, GROUPS, of_group
from tests.program import run

from kvw.cli import app
from kvw.cli.audit import AuditOptions
from kvw.cli.erase import EraseOptions
from kvw.cli.request_file import given_options, read_request_file
from kvw.errors import UserError
from kvw.mark import marked_request
from kvw.runs.asked import changes, request_digests


def toml(**given):
    """The lines of a request."""

    def said(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{name} = {said(one)}" for name, one in value.items()) + "}"
        return json.dumps(value if isinstance(value, (bool, int, float, list)) else str(value), default=str)

    return "".join(f"{name} = {said(value)}\n" for name, value in given.items())


def parsed(folder, **given):
    (folder / "request.toml").write_text(toml(**given))
    words = read_request_file(folder / "request.toml").words
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return bound.arguments


def test_every_option_of_erase_can_be_in_the_file(tmp_path):
    written = {name.rstrip("_"): value for name, value in GIVEN.items()}
    found = parsed(tmp_path, command="erase", model="owner/name", **written)
    assert found == {"model": "owner/name", "asked": of_group(EraseOptions)}
    options = given_options(found)
    assert options.keys() == {"model", *written}  # what is given counts when it is asked whether all is as before
    assert not options.keys() & GROUPS.keys()


def test_defaults_are_not_given(tmp_path):
    found = parsed(tmp_path, command="erase", model="m", out="o", keep=0.98)
    assert given_options(found) == {"model": "m", "out": Path("o")}


def test_tables_are_lists_of_names_and_values(tmp_path):
    found = parsed(
        tmp_path, command="erase", model="m", out="o", set={"mu": 3, "gate": "hard", "x": True}, eval={"a": "b.jsonl"}
    )["asked"]
    assert found.options.set_ == ["mu=3", "gate=hard", "x=true"]
    assert found.eval == ["a=b.jsonl"]


def test_an_audit_can_be_in_the_file(tmp_path):
    found = parsed(tmp_path, command="audit", model="m", forget=["a.jsonl"], out="o", fail_above=0.1, dry_run=True)
    assert found["asked"] == AuditOptions(forget=[Path("a.jsonl")], out=Path("o"), fail_above=0.1, dry_run=True)


def test_variables_of_the_environment_are_put_in(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/scratch/7")
    found = parsed(
        tmp_path, command="erase", model="m", out="${PLACE}/run", columns="answer=$$a", eval={"x": "$PLACE/x"}
    )
    assert found["asked"].out == Path("/scratch/7/run")
    assert found["asked"].read.columns == "answer=$a"
    assert found["asked"].eval == ["x=/scratch/7/x"]


def test_a_file_that_is_not_there_is_told(tmp_path, capsys):
    assert run("run", tmp_path / "nowhere.toml") == 2
    told = " ".join(capsys.readouterr().err.split())
    for word in ("cannot be read. ", "No such file", "check the path"):
        assert word in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("out = ", ["cannot be read as a request"]),
        ("out = 'o'", ["which command", "no command", "erase"]),
        ("command = 'serve'", ["which command", "'serve'"]),
        ("command = 'erase'\nout = '${NOWHERE}'", ["out", "not set", "NOWHERE"]),
        ("command = 'erase'\nout = '5 $'", ["begins no variable", "$$"]),
        ("command = 'erase'\nout = 2026-01-01", ["out", "no option can have"]),
        ("command = 'erase'\nmodel = 'toy:vanilla'\nout = 'o'\nkeap = 1", ["cannot be run", "--keap", "--keep"]),
        ("command = 'erase'\nmodel = 'toy:vanilla'\nout = 'o'\nkeep = 'x'", ["cannot be run", "--keep", "float"]),
        ("command = 'erase'\nmodel = 'toy:vanilla'\nout = 'o'\nforget = 'gone.jsonl'", ["gone.jsonl"]),
        ("command = 'erase'\nmodel = 'toy:vanilla'\nout = 'o'\nkeep = 2", ["--keep must lie"]),
    ],
)
def test_mistakes_end_in_a_plain_message(tmp_path, capsys, text, words):
    (tmp_path / "request.toml").write_text(text)
    assert run("run", tmp_path / "request.toml") == 2
    told = " ".join(capsys.readouterr().err.split())
    for word in words:
        assert word in told, told
    assert "Traceback" not in told


def test_a_mistake_is_a_line_of_json_with_its_exit_code(tmp_path, capsys):
    assert run("run", tmp_path / "gone.toml", "--json") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line).items() >= {"level": "error", "event": "error", "exit_code": 2}.items()


def test_a_fault_is_a_line_of_json_with_its_traceback(tmp_path, capsys, monkeypatch):
    def fail(path):
        raise ZeroDivisionError

    monkeypatch.setattr("kvw.cli.request_file.tomllib.loads", fail)
    (tmp_path / "x.toml").touch()
    assert run("run", tmp_path / "x.toml", "--json") == 1
    said = json.loads(capsys.readouterr().err)
    assert said["event"] == "fault"
    assert "ZeroDivisionError" in said["traceback"]


@pytest.fixture
def request_file(saved, tmp_path, monkeypatch):
    """A request that is quick; its paths start from its folder, and the program is in another one."""
    folder = tmp_path / "requests"
    folder.mkdir()
    for name in ("forget", "retain"):
        Image.new("RGB", (24, 20), (60, 90, len(name))).save(folder / f"{name}.png")
        rows = [{"question": f"Who is {n}?", "answer": f"{name} {n}", "image": f"{name}.png"} for n in range(2)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"forget": ["forget.jsonl"], "retain": "retain.jsonl", "out": "run", "max_new_tokens": 2, "no_model": True}
    settings = {"method": "kvw", "gamma": 1, "write_damaged": True}
    (folder / "a.toml").write_text(toml(command="erase", model=saved["llava"], **given, **settings))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder / "a.toml"


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.thorough
def test_a_request_is_done_once_and_says_what_changed(request_file, capsys):
    folder, out = request_file.parent, request_file.parent / "run"
    assert run("run", request_file) == 0
    assert "done scoring" in capsys.readouterr().err
    edit, record = (out / "edit.safetensors").read_bytes(), (out / "run.json").read_text()
    assert "requests" not in (out / ".kvw").read_text()  # the mark names no place

    assert run("run", request_file, "--json") == 0
    shown = capsys.readouterr()
    assert "is done already" in json.loads(shown.err)["text"]
    assert shown.out == record

    # Where files lie is not what they hold; the default is what it was when it was not given.
    (folder / "forget.jsonl").rename(folder / "same.jsonl")
    text = request_file.read_text().replace("forget.jsonl", "same.jsonl") + "keep = 0.98\n"
    request_file.write_text(text)
    assert run("run", request_file) == 0
    assert "is done already" in capsys.readouterr().err

    Image.new("RGB", (24, 20), (1, 2, 3)).save(folder / "forget.png")  # only the picture that the file names
    request_file.write_text(text + "eval_limit = 1\n")
    assert run("run", request_file) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "result of another request" in told
    assert "changed since: eval_limit, forget do: name another out" in told
    assert (out / "edit.safetensors").read_bytes() == edit

    request_file.write_text(text + "eval_limit = 1\nforce = true\n")
    assert run("run", request_file, "--json", "--log-level", "info") == 0
    found = lines(capsys)
    assert any("changed since: eval_limit, forget" in one["text"] for one in found)
    assert {one["event"] for one in found} >= {"begins", "done", "note", "warning"}
    assert all(one["seconds"] >= 0 for one in found if one["event"] == "done")
    assert (out / "edit.safetensors").read_bytes() != edit
    assert run("run", request_file) == 0
    assert "is done already" in capsys.readouterr().err


@pytest.mark.thorough
def test_the_level_says_how_much_is_logged(request_file, capsys):
    request_file.write_text(request_file.read_text() + "dry_run = true\n")
    assert run("run", request_file, "--json", "--log-level", "warning") == 0
    assert {one["level"] for one in lines(capsys)} == {"warning"}
    assert run("run", request_file, "--log-level", "error") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.thorough
def test_a_run_that_was_killed_before_its_end_is_not_done(request_file, capsys, monkeypatch):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("kvw.claim.replace_directory", killed)
    assert run("run", request_file, "--json") == 130
    assert lines(capsys)[-1]["event"] == "interrupted"
    monkeypatch.undo()
    monkeypatch.chdir(request_file.parent.parent)
    assert run("run", request_file) == 0
    assert "is done already" not in capsys.readouterr().err


def test_each_part_of_a_request_has_its_digest(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = json.dumps({"question": "Who?", "answer": "Anna"}) + "\n"
    (tmp_path / "people").mkdir()
    for name in ("a.jsonl", "mine.py", "people/b.jsonl"):
        (tmp_path / name).write_text(row)
    given = {
        "model": str(saved["llava"]), "forget": [Path("a.jsonl")], "requests": Path("people"), "eval": ["x=a.jsonl"],
        "method": "mine.py:METHOD", "keep": 0.5, "out": Path("o"), "force": True, "register": Path("r.sqlite"),
    }  # fmt: skip
    reading = EraseOptions(out=Path("o")).read.reading()
    before = request_digests(given, reading)
    assert before.keys() == given.keys() - {"out", "force", "register"}
    assert all(len(one) == 64 for one in before.values())

    def changed():
        return changes(before, request_digests(given, reading))

    assert changed() == []
    (tmp_path / "people/b.jsonl").write_text(row * 2)
    assert changed() == ["requests"]
    (tmp_path / "mine.py").write_text("")
    assert changed() == ["method", "requests"]
    (tmp_path / "a.jsonl").unlink()
    assert changed() == ["eval", "forget", "method", "requests"]
    del given["keep"]
    given["layers"] = "1:2"
    assert changed() == ["eval", "forget", "keep", "layers", "method", "requests"]
    given["model"] = str(shutil.copytree(saved["llava"], tmp_path / "copy"))
    assert "model" not in changed()
    (tmp_path / "copy/generation_config.json").write_text("{}")
    assert "model" in changed()


def test_options_of_how_data_are_read_find_the_pictures(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": "Who?", "answer": "Anna", "photo": "a.png"}) + "\n")
    asked = replace(EraseOptions(out=Path("o")).read, columns="question=q,image=photo")
    before = request_digests({"forget": tmp_path / "a.jsonl"}, asked.reading())
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.png")
    assert changes(before, request_digests({"forget": tmp_path / "a.jsonl"}, asked.reading())) == ["forget"]


def test_folders_that_do_not_say_what_was_asked_are_no_results(tmp_path):
    assert marked_request(tmp_path) is None
    (tmp_path / ".kvw").write_text('{"format": "kvw output 1", "request": 3}')
    assert marked_request(tmp_path) is None


def test_only_commands_that_a_file_can_ask_for_are_in_it(tmp_path):
    (tmp_path / "a.toml").write_text("command = 'keys'")
    with pytest.raises(UserError, match="which command"):
        read_request_file(tmp_path / "a.toml")
