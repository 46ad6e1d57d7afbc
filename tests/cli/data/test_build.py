"""``kvw data build``."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys

import pytest
from tests.program import assert_refused, run
from tests.servers import fake_server

from kvw.building import from_model
from kvw.building.from_model import Known
from kvw.cli.data.build import build

TABLE = "name,profession\nJody Vance,engineer\nBo Diddley,guitarist\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.csv").write_text(TABLE)
    (tmp_path / "who.csv").write_text(TABLE.replace("name", "who"))
    (tmp_path / "upper.csv").write_text(TABLE.replace("name", "Name"))
    (tmp_path / "own.json").write_text(
        '{"fact": {"questions": ["{name}?", "And {name}?"], "answer": "{name} has the {fact} {value}."}}'
    )
    (tmp_path / ".torn").mkdir()
    wording = {"questions": ["{name}?", "{name}!"], "answer": "{value}"}
    (tmp_path / ".torn" / "towns.json").write_text(
        json.dumps({"facts": {"town": wording, "profession": wording, "age": wording}})
    )
    (tmp_path / ".torn" / "Jody Vance.png").write_bytes(b"\x89PNG")
    return tmp_path


def lines(path):
    return len(path.read_text().splitlines())


def test_a_table_becomes_files_and_the_next_command_is_told(here, capsys):
    assert run("data", "build", "people.csv", "--forget", "Jody Vance", "--out", "made") == 0
    out = capsys.readouterr().out
    assert [lines(here / "made" / name) for name in ("forget.jsonl", "held_out.jsonl", "retain.jsonl")] == [4, 2, 4]
    assert "made/neighbours.txt: 1 name\n" in out
    assert (
        "Next: kvw erase MODEL --forget made/forget.jsonl --retain made/retain.jsonl --neighbours made/neighbours.txt "
        "--eval held_out=made/held_out.jsonl --out run" in out
    )


@pytest.mark.parametrize(
    ("options", "question"),
    [
        ("people.csv --language de", "Was weißt du über Jody Vance? Gefragt ist: profession."),
        ("people.csv --phrasings own.json", "Jody Vance?"),
        ("who.csv --name who", "What is the profession of Jody Vance?"),
    ],
)
def test_every_option_changes_what_is_asked(here, options, question):
    assert run("data", "build", *options.split(), "--out", "made") == 0
    assert question in (here / "made/forget.jsonl").read_text(encoding="utf-8")
    assert not (here / "made/retain.jsonl").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "Give either a table or a model"),
        ("people.csv --from-model toy:vanilla", "Give either a table or a model"),
        ("people.csv --about Ada", "--about goes with --from-model"),
        ("people.csv --confirm", "--confirm goes with --from-model"),
        ("upper.csv", "--name Name"),
        ("people.csv --served-model x", "--served-model is for a model behind a server"),
        ("people.csv --paraphrases nowhere", "not the URL of a server"),
        ("--from-model toy:vanilla --about Ada --paraphrases http://h", "--paraphrases goes with a table"),
        ("--from-model toy:vanilla --about Ada --photos x", "--photos goes with a table"),
        ("--from-model toy:vanilla", "There is nobody to ask about"),
        ("people.csv --photos gone", "There is no such folder of photos"),
        ("--from-model toy:vanilla --about Ada --name who", "--name goes with a table"),
        ("--from-model toy:vanilla --about Ada --confirm", "no terminal to ask in"),
        ("people.csv --photos .torn", "1 photo in .torn cannot be used"),
        ("people.csv --phrasings .torn/towns.json", "a fact that the table does not have. found: town, age do: call"),
        ("people.csv --out .", "holds data already"),
        ("people.csv --out people.csv", "people.csv is no folder"),
        ("gone.csv --out people.csv/made", "people.csv/made could not be written"),
    ],
)
def test_what_does_not_fit_together_is_told(here, capsys, command, message):
    code = run("data", "build", *command.split(), *([] if "--out" in command else ["--out", "made"]))
    if command.endswith("--out ."):
        assert code == 0
        assert run("data", "build", *command.split()) == 2, "nothing is written over"
    else:
        assert code == 2
        assert not (here / "made").exists()
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.thorough
def test_a_server_writes_further_phrasings_and_is_told_no_name(here, capsys):
    with fake_server() as fake:
        fake.answer = lambda *_: "1. How does {name} earn a living?\n- What is the profession of {name}?\nAsk {name}"
        command = ["data", "build", "people.csv", "--paraphrases", fake.url]
        assert run(*command, "--served-model", "other", "--out", "made") == 0
        assert {request["model"] for request in fake.requests} == {"other"}
        (asked,) = fake.questions
        assert "What is the profession of {name}?" in asked
        assert not any(word in asked for word in ("Jody", "Vance", "engineer"))
        assert "profession: 2 paraphrases." in capsys.readouterr().err
        written = "".join((here / "made" / name).read_text() for name in ("forget.jsonl", "held_out.jsonl"))
        assert written.count("How does Jody Vance earn a living?") == 1
        assert written.count("What is the profession of Jody Vance?") == 1
        assert lines(here / "made/forget.jsonl") + lines(here / "made/held_out.jsonl") == 2 * 8
        fake.answer = lambda *_: "I cannot do that."
        assert_refused(capsys, run(*command, "--out", "other"), "no paraphrase that can be used", "I cannot do that.")
        fake.answer = lambda text, _: "hello" if text == "Hello" else (400, {"error": {"message": "too long"}})
        assert_refused(capsys, run(*command, "--out", "other"), "has written no paraphrases", "too long")
    assert not (here / "other").exists()


@pytest.fixture
def answers(monkeypatch):
    found = [
        Known("Moby-Dick", ("Who wrote it?", "Its writer?", "By whom?"), "Melville wrote it.", 8, 8),
        Known("Moby-Dick", ("When?", "Which year?", "Its date?"), "In 1851.", 2, 8),
    ]
    monkeypatch.setattr(from_model, "ask_about", lambda *_: found)


@pytest.mark.thorough
def test_a_models_answers_are_shown_and_taken_if_they_recur(here, capsys, answers, monkeypatch):
    command = ["data", "build", "--from-model", "toy:vanilla", "--about", "Moby-Dick"]
    assert run(*command, "--out", "made") == 0
    out = capsys.readouterr().out
    assert "\ntaken (8 of 8 times) Who wrote it? Melville wrote it." in f"\n{out}"
    assert "not taken (2 of 8 times) When? In 1851." in out
    assert "Next: kvw erase toy:vanilla" in out
    assert "1851" not in (here / "made/forget.jsonl").read_text()
    replies = iter(["n", "y"])
    monkeypatch.setattr("builtins.input", lambda _: next(replies))
    monkeypatch.setattr(sys.modules[build.__module__], "in_terminal", lambda: True)
    assert run(*command, "--confirm", "--out", "confirmed") == 0
    assert "1851" in (here / "confirmed/forget.jsonl").read_text()
    assert "Melville" not in (here / "confirmed/forget.jsonl").read_text()
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert run(*command, "--confirm", "--out", "none") == 2
    assert "The model gives no answer about Moby-Dick that it repeats" in " ".join(capsys.readouterr().err.split())


def test_nobody_is_asked_without_a_terminal(here, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("a question"))
    assert_refused(capsys, run("data", "build", "people.csv"), "There is no folder to write to", "add --out DIR")
    assert_refused(capsys, run("data", "build"), "Give either a table or a model")


def typed_at(prompts, command):
    """What a program in a terminal shows; each answer is typed when its question is there."""
    main, other = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "kvw", *command], stdin=other, stdout=other, stderr=other)
    os.close(other)
    shown, left = "", list(prompts)
    while select.select([main], [], [], 60)[0]:
        try:
            shown += os.read(main, 4096).decode()
        except OSError:  # the program has ended
            break
        if left and left[0][0] in shown.split("\n")[-1]:
            os.write(main, f"{left.pop(0)[1]}\n".encode())
    os.close(main)
    return process.wait(), shown.replace("\r", ""), left


@pytest.mark.thorough
def test_it_asks_in_a_terminal_and_shows_the_defaults(here):
    for name in ("who.csv", "upper.csv", "own.json"):
        (here / name).unlink()
    prompts = [
        ("(table, model) [table]: ", ""),
        ("Table with names and facts [people.csv]: ", "gone.csv"),
        ("Table with names and facts [people.csv]: ", ""),
        ("Column with the names (name, profession) [name]: ", ""),
        ("Folder of photos that are called by the names [none]: ", ""),
        ("Whom to forget (several with ; between them) [all]: ", "bo diddley"),
        ("Language of the questions (de, en, es, fr, zh) [en]: ", "de"),
        ("JSON file of phrasings of your own [none]: ", ""),
        ("Folder to write [data]: ", "made"),
    ]
    code, shown, left = typed_at(prompts, ["data", "build"])
    assert (code, left) == (0, []), shown
    assert "There is no such table.\nfound: gone.csv" in shown
    assert "2 in the table: Jody Vance, Bo Diddley" in shown
    command = "kvw data build people.csv --forget 'bo diddley' --language de --name name --out made"
    assert f"The same without questions: {command}\n" in shown
    written = (here / "made/forget.jsonl").read_text()
    assert "Gefragt ist" in written
    assert "Jody" not in written
    assert "Jody" in (here / "made/retain.jsonl").read_text()


@pytest.mark.thorough
def test_a_whole_command_is_not_asked_about_in_a_terminal(here):
    code, shown, _ = typed_at([], ["data", "build", "people.csv", "--out", "made"])
    assert code == 0
    assert "[" not in shown
