"""What files call their columns, and which answers of conversations count, on every command that reads data."""

from __future__ import annotations

import json
import sys

import pytest
from tests.data import user_inputs

from kvw.cli import main
from kvw.cli.options import DataOptions
from kvw.data.readers import read_examples
from kvw.errors import UserError


class DataWereRead(Exception):
    pass


def stop():
    raise DataWereRead


VERBS = {
    "erase": ["erase", "toy:vanilla", "--forget", "d.csv", "--out", "new"],
    "measure": ["measure", "toy:vanilla", "--data", "d.csv", "--out", "new.safetensors"],
    "evaluate": ["evaluate", "toy:vanilla", "--data", "d.csv"],
    "audit": ["audit", "toy:vanilla", "--forget", "d.csv", "--out", "new"],
    "inspect": ["inspect", "activations", "toy:vanilla", "--data", "d.csv", "--out", "new.html"],
    "sweep": ["sweep", "layers", "toy:vanilla", "--forget", "d.csv", "--out", "new"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_columns_are_named_on_every_command(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("Frage;Antwort\nWer?;Ada\n")
    monkeypatch.setattr(sys.modules[f"kvw.cli.{verb}"], "quiet_libraries", stop)
    with pytest.raises(SystemExit) as ended:
        main(VERBS[verb])
    assert ended.value.code == 2
    assert "--columns question=Frage" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DataWereRead):
        main([*VERBS[verb], "--columns", "question=Frage, answer=Antwort"])


def test_answers_says_which_answers_of_a_conversation_count(tmp_path):
    path = user_inputs.conversation(tmp_path)
    counts = [len(read_examples(path, DataOptions(answers=answers).reading())) for answers in ("last", "all")]
    assert counts == [1, 2]


@pytest.mark.parametrize("columns", ["question", "question=", "=q", "question=a,question=b", "who=a"])
def test_columns_of_another_form_are_user_errors(columns):
    with pytest.raises(UserError, match="--columns"):
        DataOptions(columns=columns).reading()


def test_the_counts_say_that_pictures_were_read(tmp_path, monkeypatch):
    from kvw.runs.counts import Count

    user_inputs.picture(tmp_path)
    (tmp_path / "d.jsonl").write_text(json.dumps({"q": "Who?", "a": "Ada", "img": "ada.png", "who": "Ada"}))
    reading = DataOptions(columns="question=q,answer=a,image=img,subject=who").reading()
    found = Count.of(read_examples(tmp_path / "d.jsonl", reading))
    assert str(found) == "1 example, 1 with pictures, 1 subject"
