"""Audits of a model behind a server."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from tests.program import run
from tests.servers import fake_server
from tests.serving.running import Toy, running

from kvw.runs.audit.served import ServedModel
from kvw.toy import World

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def forget(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "forget.jsonl"
    rows = [
        {"question": one.question, "answer": one.answer, "subject": one.subject, "id": one.identifier}
        for one in islice(World().split("forget_text"), 4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def audited(tmp_path, forget, *arguments, attacks="asked,rephrased,forced", out="out"):
    code = run(
        "audit", *arguments, "--forget", forget, "--attacks", attacks, "--max-new-tokens", 6, "--out", tmp_path / out
    )
    assert code == 0
    return json.loads((tmp_path / out / "audit.json").read_text())


def test_a_served_model_is_found_to_say_what_the_same_model_says_here(tmp_path, forget):
    toy = Toy()
    toy.edits["alice"].save(tmp_path / "alice.safetensors")
    with running(toy, default="none", allow_plain=True) as server:
        command = ("--endpoint", server.url, "--served-model", "alice", "--original", "toy:vanilla")
        served = audited(tmp_path, forget, *command)
    local = audited(tmp_path, forget, "toy:vanilla", "--edit", tmp_path / "alice.safetensors", out="local")
    assert served["left_out"] == {"forced": "it needs the model itself, and a server gives replies only"}
    for attack in ("asked", "rephrased"):
        assert served["answers"][attack] == local["answers"][attack]
    here = [line for line in local["lines"] if line["attack"] != "forced"]
    assert served["lines"] == here
    assert served["model"]["name"].startswith("alice at 127.0.0.1:")
    assert served["original"]["name"].startswith("toy:vanilla at")
    assert served["warnings"] == []
    assert "not known, the model is served" in (tmp_path / "out" / "audit.html").read_text()


def test_samples_are_drawn_and_prompts_without_an_answer_are_counted(tmp_path, forget):
    rows = [json.loads(line) for line in forget.read_text().splitlines()]
    with fake_server() as server:
        server.answer = lambda question, before: (
            (500, {"error": {"message": "no"}}) if question == rows[0]["question"] else rows[1]["answer"]
        )
        found = audited(tmp_path, forget, "--endpoint", server.url, "--samples", 2, attacks="asked,samples")
        own = {row["question"] for row in rows}
        sent = [one for one in server.requests if one["messages"][0]["content"][-1]["text"] in own]
    tries = found["answers"]["samples"]["now"]
    assert [one["how"] for one in tries] == ["sample 1", "sample 2"] * 4
    assert [one["found"] for one in tries][:4] == [False, False, True, True]
    assert {one["temperature"] for one in sent} == {0.0, 1.0}
    assert found["lines"][1]["now"]["questions"] == 4
    assert any("gave no answer to 3 prompts" in warning for warning in found["warnings"])
    assert any("Add --original NAME" in warning for warning in found["warnings"])


def test_a_finished_audit_asks_again_because_another_model_may_be_there(tmp_path, forget):
    with fake_server() as server:
        server.answer = lambda question, before: "x"
        audited(tmp_path, forget, "--endpoint", server.url, attacks="asked")
        first = len(server.requests)
        audited(tmp_path, forget, "--endpoint", server.url, attacks="asked", out="again")
        assert len(server.requests) == 2 * first


def test_an_interrupted_audit_asks_only_what_is_left(tmp_path, forget, monkeypatch):
    ask = ServedModel.attacked

    def interrupted(self, name, *rest):
        if name == "rephrased":
            raise KeyboardInterrupt
        return ask(self, name, *rest)

    with fake_server() as server:
        server.answer = lambda question, before: "x"
        with monkeypatch.context() as patched:
            patched.setattr(ServedModel, "attacked", interrupted)
            command = ("audit", "--endpoint", server.url, "--forget", forget, "--attacks", "asked,rephrased")
            assert run(*command, "--out", tmp_path / "out") == 130
        own = {json.loads(line)["question"] for line in forget.read_text().splitlines()}
        assert sum(question in own for question in server.questions) == 4
        assert run(*command, "--out", tmp_path / "out") == 0
        assert sum(question in own for question in server.questions) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "There is no model to attack"),
        (("toy:vanilla", "--served-model", "x"), "add --endpoint URL"),
        (("toy:vanilla", "--endpoint", "http://h/v1"), "MODEL cannot be combined"),
        (("--endpoint", "http://h/v1", "--edit", "e"), "--edit cannot be combined"),
        (("--endpoint", "http://h/v1", "--gold", "toy:gold"), "--gold cannot be combined"),
        (("--endpoint", "http://127.0.0.1:9/v1"), "There is no server"),
        (("--endpoint", "http://127.0.0.1:9/v1", "--dry-run"), "how fast a server answers"),
        (("--endpoint", "http://h/v1", "--attacks", "forced,int8"), "None of the attacks is possible"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path, forget, capsys, arguments, words):
    assert run("audit", *arguments, "--forget", forget, "--out", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
