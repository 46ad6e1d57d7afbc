"""``python -m kvw.proving``."""

from __future__ import annotations

import pytest
from tests.proving.test_table import record

from kvw.data import read_examples
from kvw.proving import __main__ as command
from kvw.proving import parts
from kvw.proving.facts import facts
from kvw.proving.requests import Part


@pytest.fixture
def known(monkeypatch):
    """Every second fact is known, whatever the model."""
    monkeypatch.setattr(command, "find_checkpoint", lambda model: model)
    monkeypatch.setattr(parts, "known_facts", lambda checkpoint, reporter: facts()[::2])


@pytest.mark.thorough
@pytest.mark.usefixtures("known")
def test_requests_are_written(tmp_path, capsys):
    arguments = ["requests", "--half", "choosing", "--out", str(tmp_path)]
    assert command.main([*arguments, "--only", "1", "3"]) == 0
    assert "2 requests" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "choosing").iterdir()) == ["01", "03"]
    files = sorted(path.name for path in (tmp_path / "choosing" / "01").iterdir())
    assert files == ["floor.jsonl", "forget.jsonl", "held_out.jsonl", "retain.jsonl", "unused.jsonl"]
    assert len({example.subject for example in read_examples(tmp_path / "choosing" / "01" / "forget.jsonl")}) == 3
    assert command.main([*arguments, "--only", "99"]) == 2
    assert "There is no such request." in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.usefixtures("known")
def test_a_run_gets_the_model_the_half_and_the_options(tmp_path, capsys, monkeypatch):
    made = []

    class Ground:
        def __init__(self, *arguments):
            made.append(arguments)

        def run(self, requests):
            made.append([(request.half, request.number) for request in requests])
            return [record(number=request.number) for request in requests]

    monkeypatch.setattr(command, "ProvingGround", Ground)
    options = '{"method": "kvw", "settings": {"gamma": 0.1}}'
    arguments = ["run", "--half", "reporting", "--out", str(tmp_path), "--model", "toy:gold"]
    assert command.main([*arguments, "--options", options, "--only", "2", "0"]) == 0
    assert made[0][:3] == ("toy:gold", tmp_path, {"method": "kvw", "settings": {"gamma": 0.1}})
    assert made[1] == [("reporting", 0), ("reporting", 2)]
    assert "| **all** | 2 of 2 | 0 of 0 |" in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.usefixtures("known")
def test_a_part_brings_its_model_its_requests_and_its_gold(tmp_path, monkeypatch):
    made = []

    class Ground:
        def __init__(self, checkpoint, out, options, reporter, gold):
            made.append((checkpoint, gold))

        def run(self, requests):
            return [record()]

    part = Part("other", "ours", lambda half, model, reporter: made.append((half, model)) or [], {"choosing": "gold"})
    monkeypatch.setitem(command.PARTS, "other", part)
    monkeypatch.setattr(command, "ProvingGround", Ground)
    arguments = ["run", "--half", "choosing", "--out", str(tmp_path)]
    for more in (["--part", "other"], ["--part", "other", "--model", "mine"], []):
        assert command.main([*arguments, *more]) == 0
    assert made == [
        ("choosing", "ours"),
        ("ours", "gold"),
        ("choosing", "mine"),
        ("mine", None),
        ("smollm2:135m", None),
    ]


def test_options_that_are_no_mapping_end_in_the_usage(capsys):
    for options in ("[1]", "{", "gamma=1"):
        with pytest.raises(SystemExit):
            command.main(["run", "--half", "reporting", "--out", "out", "--options", options])
        assert "--options" in capsys.readouterr().err


def test_the_table_is_made_from_records(tmp_path, capsys):
    assert command.main(["table", "--half", "reporting", "--out", str(tmp_path)]) == 2
    assert "no records of this half" in capsys.readouterr().err
    record(4).write(tmp_path / "reporting" / "04")
    assert command.main(["table", "--half", "reporting", "--out", str(tmp_path)]) == 0
    assert "1 requests of the reporting half" in capsys.readouterr().out
    record(5).write(tmp_path / "more" / "reporting" / "05")
    assert command.main(["table", "--half", "reporting", "--out", str(tmp_path), str(tmp_path / "more")]) == 0
    assert "| 2, 2 with an edit |" in capsys.readouterr().out
    record(6).write(tmp_path / "other" / "more" / "reporting" / "06")
    namesakes = [str(tmp_path / "more"), str(tmp_path / "other" / "more")]
    assert command.main(["table", "--half", "reporting", "--out", *namesakes]) == 0
    assert "| 2, 2 with an edit |" in capsys.readouterr().out
