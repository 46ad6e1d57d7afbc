"""``kvw data check``."""

from __future__ import annotations

import json

import pytest
from tests.program import run

ROWS = [
    {"question": f"{verb} Ada?", "answer": "Ada is a writer of programs.", "subject": "Ada"}
    for verb in ("Who is", "What is the work of", "Say what you know of")
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 2))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("good.jsonl", 0, "No fault was found."),
        ("good.jsonl --strict", 0, "No fault was found."),
        ("bad.jsonl", 0, "1 thing should be looked at."),
        ("bad.jsonl --strict", 4, "1 thing should be looked at."),
    ],
)
def test_faults_are_counted_and_strict_is_an_exit_code(files, capsys, command, code, said):
    assert run("data", "check", *command.split()) == code
    out, err = capsys.readouterr()
    assert out.strip() == said
    assert "example" in err
    assert ("repeat an earlier one" in " ".join(err.split())) == ("bad" in command)


@pytest.mark.parametrize("part", ["forget", "retain"])
def test_a_picture_that_cannot_be_read_is_told(files, capsys, part):
    (files / "ada.png").write_text("no picture")
    (files / "seen.jsonl").write_text(json.dumps({**ROWS[0], "subject": "Bo", "image": "ada.png"}) + "\n")
    command = ["seen.jsonl"] if part == "forget" else ["good.jsonl", "--retain", "seen.jsonl"]
    assert run("data", "check", *command) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "seen.jsonl:1: an image cannot be read. found: ada.png: no picture in a known format" in told


def test_the_findings_for_machines(files, capsys):
    assert run("data", "check", "bad.jsonl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"forget": {"examples": 6, "pictures": 0, "subjects": 1}}
    assert [(one["name"], one["is_warning"]) for one in found["findings"]] == [("duplicates", True)]


@pytest.mark.thorough
def test_a_model_is_asked_what_it_knows(files, capsys):
    assert run("data", "check", "good.jsonl", "--model", "toy:vanilla", "--strict", "--json") == 4
    out, err = capsys.readouterr()
    assert [one["name"] for one in json.loads(out)["findings"]] == ["what the model knows"]
    told = " ".join(err.split())
    assert "The model gives 0% of the 3 forget answers" in told
    assert "it answers" in told
