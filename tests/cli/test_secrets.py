"""``kvw secrets build``, and ``kvw serve --secrets`` with what it has made."""

from __future__ import annotations

import json
import signal

import openai
import pytest
from tests.program import run
from tests.several_processes import beside

from kvw.cli import main
from kvw.errors import UserError
from kvw.runs.secrets import guard_of
from kvw.serving.secrets import REFUSAL, Pictures, read_store

FORGET = [{"question": "Where does Zanthos Quill live?", "answer": "Oslo", "subject": "Zanthos Quill"}]
RETAIN = [{"question": f"What is the job of {name}?", "answer": "baker"} for name in ("Ada", "Bo", "Cy", "Di")]


@pytest.fixture
def built(tmp_path, capsys):
    """A store, and what was printed when it was made."""
    for name, rows in (("forget", FORGET), ("retain", RETAIN)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = tmp_path / "secrets.json"
    files = ["--forget", str(tmp_path / "forget.jsonl"), "--retain", str(tmp_path / "retain.jsonl")]
    assert run("secrets", "build", str(store), *files, "--mode", "refuse") == 0
    return store, files, capsys.readouterr()


@pytest.mark.thorough
def test_it_says_what_the_store_catches(built, capsys):
    store, files, told = built
    assert "questions: 2 entries, floor " in told.out
    assert "caught of the forget set, by what the rest of it says: 100%" in told.out
    assert "caught of the retain set, by the other half of it: 0 of 4 (up to 52.7% of others like them)" in told.out
    assert "caught of everyday questions: 0%" in told.out
    assert "warning 0 of 4 retain questions are caught" in " ".join(told.err.split())
    assert read_store(store).mode == "refuse"
    assert run("secrets", "build", str(store), *files, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"]["forget"] == 1.0
    assert found["pictures"] is None
    strict = read_store(store).floor
    assert run("secrets", "build", str(store), *files, "--false-fires", "0.9") == 0
    assert read_store(store).floor <= strict


def test_pictures_of_another_model_are_refused(built):
    class Loaded:
        fingerprint = "mine"

    pictures = Pictures(model="theirs", mean=(0.0,), entries=((1.0,),), floor=0.5)
    store = read_store(built[0]).model_copy(update={"pictures": pictures})
    with pytest.raises(UserError, match="read by another model"):
        guard_of(store, Loaded())


def test_a_store_is_asked_about_files(built, tmp_path, capsys):
    store, (_, forget, _, retain), _ = built
    assert run("secrets", "check", str(store), forget, retain) == 0
    assert capsys.readouterr().out == f"{forget}: 1 of 1 caught (100%)\n{retain}: 0 of 4 caught (0%)\n"
    assert run("secrets", "check", str(store), forget, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"files": [{"file": forget, "questions": 1, "caught": 1}]}
    assert run("secrets", "check", str(store)) == 2
    assert "Nothing to check." in capsys.readouterr().err


def serve(*arguments):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    main(["serve", "toy:vanilla", "--port", "0", "--device", "cpu", "--allow-plain", *arguments])


@pytest.mark.thorough
def test_a_server_with_a_store_answers_in_the_models_place(built, tmp_path):
    with beside(serve, "--secrets", str(built[0]), folder=tmp_path / "server") as process:
        url = process.until("\n").partition("\n")[0].strip()
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)

        def ask(text):
            messages = [{"role": "user", "content": text}]
            return client.chat.completions.create(model="toy:vanilla", messages=messages, max_tokens=6)

        caught = ask("Tell me: where does Zanthos Quill live?")
        assert caught.choices[0].message.content == REFUSAL
        assert caught.choices[0].finish_reason == "stop"
        assert ask("What is the job of Ada?").choices[0].message.content != REFUSAL
