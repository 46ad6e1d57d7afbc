"""Audits of the shipped toy models: gold passes, the model that knows fails, and what was found is not asked again."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from tests.evaluation.attacks.edits import weakening
from tests.program import run

from kvw.cache import cache_directory
from kvw.edits import scale
from kvw.errors import UserError
from kvw.evaluation.attacks import changing
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint
from kvw.records.audit import Found
from kvw.runs.audit import models
from kvw.runs.audit import run as auditing
from kvw.runs.audit.attacks import ATTACKS
from kvw.runs.audit.request import AuditRequest
from kvw.toy import World

load = functools.cache(Loaded.load)


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch):
    """No audit leaves a trace on a model, so all tests may have the same ones."""
    monkeypatch.setattr(auditing.Loaded, "load", lambda checkpoint, *_, **__: load(checkpoint))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, world = tmp_path_factory.mktemp("toy"), World()
    for split, count in (("forget_text", 6), ("retain_text", 12)):
        rows = [
            {"question": one.question, "answer": one.answer, "subject": one.subject, "id": one.identifier}
            for one in islice(world.split(split), count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def audit(data, tmp_path):
    def ask(model, *more, attacks="asked,forced", out="out"):
        return run(
            "audit", model, "--forget", data / "forget_text.jsonl", "--retain", data / "retain_text.jsonl",
            "--attacks", attacks, "--max-new-tokens", 6, "--fail-above", 0.1, "--out", tmp_path / out, *more,
        )  # fmt: skip

    return ask


def record(tmp_path, out="out"):
    return json.loads((tmp_path / out / "audit.json").read_text())


@pytest.mark.thorough
def test_the_model_that_knows_fails_and_says_what_comes_back(audit, tmp_path, capsys):
    assert audit("toy:vanilla", "--gold", "toy:gold", attacks="asked,lens-hp,choice") == 7
    found = record(tmp_path)
    assert {line["attack"]: line["verdict"] for line in found["lines"]} == dict.fromkeys(
        ("asked", "choice", "lens-hp"), "comes back"
    )
    assert found["lines"][0]["now"]["share"] == 1.0
    assert {line["floor_by"] for line in found["lines"]} == {"gold"}
    assert found["verdict"][0].startswith("Not forgotten: 3 of 3")
    assert found["answers"]["asked"]["now"][0]["reply"]
    assert found["gold"]["name"] == "toy:gold"
    page = (tmp_path / "out/audit.html").read_text()
    assert "Not forgotten: 3 of 3" in page
    assert found["answers"]["asked"]["now"][0]["asked"] in page  # the toy's people are made up
    shown = capsys.readouterr().out
    assert "comes back" in shown
    assert "Not forgotten" in shown


@pytest.mark.thorough
def test_gold_passes_and_its_floor_are_subjects_that_do_not_exist(audit, tmp_path):
    assert audit("toy:gold", "--original", "toy:vanilla") == 0
    found = record(tmp_path)
    assert {line["verdict"] for line in found["lines"]} == {"holds"}
    assert {line["floor_by"] for line in found["lines"]} == {"subjects that do not exist"}
    assert [line["original"]["share"] for line in found["lines"]] == [1.0, 1.0]
    asked = {one["asked"] for one in found["answers"]["asked"]["floor"]}
    assert not asked & {one["asked"] for one in found["answers"]["asked"]["now"]}


@pytest.mark.thorough
def test_without_anything_to_compare_with_that_is_a_warning(audit, tmp_path):
    assert audit("toy:gold", attacks="asked,choice,membership") == 0
    found = record(tmp_path)
    assert [line["floor_by"] for line in found["lines"]] == ["nothing", "chance", "chance"]
    assert any("neither gold nor the original" in warning for warning in found["warnings"])


@pytest.mark.thorough
def test_a_weak_edit_fails_and_a_strong_one_is_told_from_it(audit, tmp_path):
    vanilla = load(find_checkpoint("toy:vanilla"))
    edit = weakening(vanilla.model, size=8.0)
    edit.metadata = edit.metadata.model_copy(update={"model_fingerprint": vanilla.fingerprint})
    edit.save(tmp_path / "edit.safetensors")
    scale(edit, 0.02).save(tmp_path / "weak.safetensors")
    assert audit("toy:vanilla", "--edit", tmp_path / "edit.safetensors") == 0
    assert {line["verdict"] for line in record(tmp_path)["lines"]} == {"holds"}
    assert audit("toy:vanilla", "--edit", tmp_path / "weak.safetensors", out="weak") == 7
    assert {line["verdict"] for line in record(tmp_path, "weak")["lines"]} == {"comes back"}
    assert record(tmp_path)["edit_digest"] == edit.digest() != record(tmp_path, "weak")["edit_digest"]


@pytest.mark.thorough
def test_a_killed_audit_goes_on_and_trusts_nothing_damaged(data, tmp_path, monkeypatch):
    gold = find_checkpoint("toy:gold")
    request = AuditRequest(
        gold, [data / "forget_text.jsonl"], tmp_path / "out", attacks=("asked", "forced", "noise"), max_new_tokens=6
    )
    made: list[str] = []
    ask = models.Asking.made

    def counted(self, attack, questions):
        made.append(attack)
        if attack == "noise" and made.count("noise") == 1:
            raise KeyboardInterrupt
        return ask(self, attack, questions)

    monkeypatch.setattr(models.Asking, "made", counted)
    with pytest.raises(KeyboardInterrupt):
        auditing.audit(request)
    assert not request.out.exists()
    auditing.audit(request)
    assert made == ["asked", "forced", "noise", "noise"]
    kept = list((cache_directory() / "audits").glob("*.json"))
    assert len(kept) == 3
    for path in kept:
        content = path.read_bytes()
        assert b'"found":false' in content
        path.write_bytes(content.replace(b'"found":false', b'"found":true ', 1))  # still JSON, and wrong
    with pytest.raises(UserError, match="not empty"):
        auditing.audit(request)
    found = auditing.audit(replace(request, force=True))
    assert made[4:] == ["asked", "forced", "noise"]
    assert sum("is damaged" in warning for warning in found.warnings) == 3


@pytest.mark.thorough
def test_what_a_killed_attack_has_asked_is_not_asked_again(audit, monkeypatch):
    asked: list[str] = []
    ask = models.Asking.made

    def counted(self, attack, questions):
        asked.append(questions.examples[0].question)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(self, attack, questions)

    monkeypatch.setattr(models.Asking, "made", counted)
    assert audit("toy:gold", "--original", "toy:vanilla", attacks="asked") == 130
    assert audit("toy:gold", "--original", "toy:vanilla", attacks="asked") == 0
    original, floor, again, now = asked
    assert floor == again != original == now


@pytest.mark.parametrize(
    ("attack", "option", "value"),
    [("samples", "samples", 3), ("lens-hp", "budget", 10), ("relearn-retain", "steps", 2), ("asked", "at_most", 2),
     ("relearn-retain", "learning_rate", 1e-3)],
)  # fmt: skip
def test_every_number_changes_what_is_done(attack, option, value, data, tmp_path):
    base = {"attacks": (attack,), "max_new_tokens": 3, "samples": 2, "budget": 40, "steps": 1, "at_most": 4}
    asked = dict(forget=[data / "forget_text.jsonl"], retain=data / "retain_text.jsonl")  # noqa: C408
    found = []
    for more in (base, {**base, option: value}):
        request = AuditRequest(find_checkpoint("toy:gold"), out=tmp_path / "out", force=True, **asked, **more)
        one = auditing.audit(request)
        found.append((one.answers, [line.now.losses for line in one.lines]))
    assert found[0] != found[1]


@pytest.mark.thorough
def test_attacks_on_the_weights_are_those_of_the_benchmarks(data, tmp_path, monkeypatch):
    names = [name for name, attack in ATTACKS.items() if attack.kind == "weights"]
    seen: list[tuple[str, int, int]] = []
    attacked = models.attacked

    def noted(model, processor, name, put_on, **more):
        seen.append((name, len(more["examples"]), more["steps"]))
        return attacked(model, processor, name, put_on, **more)

    monkeypatch.setattr(models, "attacked", noted)
    assert models.attacked is not changing.attacked
    request = AuditRequest(
        find_checkpoint("toy:gold"), [data / "forget_text.jsonl"], tmp_path / "out", retain=data / "retain_text.jsonl",
        attacks=tuple(names), steps=1, max_new_tokens=3,
    )  # fmt: skip
    found = auditing.audit(request)
    rows = len(found.answers["relearn-forget"]["now"])
    halves = [count for name, count, _ in seen if name == "relearn-forget"]
    assert sum(halves) == rows == found.data.asked
    assert [one[0] for one in seen] == [*names, "relearn-forget"]
    assert {(name, steps) for name, _, steps in seen if steps} == {("relearn-retain", 1), ("relearn-forget", 1)}
    assert len(found.lines[-1].now.losses) == 2


def test_nothing_possible_is_told(data, tmp_path):
    request = AuditRequest(
        find_checkpoint("toy:gold"), [data / "forget_text.jsonl"], tmp_path / "out", attacks=("photo", "relearn-retain")
    )
    with pytest.raises(UserError, match="None of the attacks is possible"):
        auditing.audit(request)


def test_without_fail_above_what_comes_back_is_said_and_no_failure(data, tmp_path):
    code = run(
        "audit", "toy:vanilla", "--forget", data / "forget_text.jsonl", "--attacks", "asked", "--max-new-tokens", 6,
        "--at-most", 2, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0
    assert record(tmp_path)["lines"][0]["verdict"] == "comes back"


def test_an_edit_of_other_weights_is_refused(audit, tmp_path, capsys):
    edit = weakening(load(find_checkpoint("toy:gold")).model)
    edit.metadata = edit.metadata.model_copy(update={"model_fingerprint": "0" * 64})
    edit.save(tmp_path / "edit.safetensors")
    for dry_run in ([], ["--dry-run"]):
        assert audit("toy:gold", "--edit", tmp_path / "edit.safetensors", *dry_run) == 2
        assert "other weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nobody_is_asked_about_whom_the_attack_has_trained_on(data, tmp_path, monkeypatch):
    taught: list[set[str]] = []
    asked: list[set[str]] = []
    attacked, ask = models.attacked, models.Asking.made

    def noted(*given, **more):
        taught.append({one.subject for one in more["examples"]})
        return attacked(*given, **more)

    def counted(self, attack, questions):
        asked.append({one.subject for one in questions.examples})
        return ask(self, attack, questions)

    monkeypatch.setattr(models, "attacked", noted)
    monkeypatch.setattr(models.Asking, "made", counted)
    files, attacks = [data / "forget_text.jsonl"], ("relearn-forget",)
    auditing.audit(
        AuditRequest(find_checkpoint("toy:gold"), files, tmp_path / "out", attacks=attacks, steps=1, max_new_tokens=2)
    )
    assert len(taught) == len(asked) == 2
    assert all(not one & other for one, other in zip(taught, asked, strict=True))
    assert taught[0] | asked[0] == taught[1] | asked[1]
    assert taught[0] == asked[1]


def test_an_attack_that_can_ask_nothing_is_not_made(tmp_path):
    rows = [
        {"question": f"Who is the {number} one?", "answer": name, "subject": name}
        for number, name in enumerate(("Ilsa Castell", "Noor Sato"))
    ]
    (tmp_path / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = AuditRequest(
        find_checkpoint("toy:gold"), [tmp_path / "names.jsonl"], tmp_path / "out", attacks=("asked", "name"),
        max_new_tokens=2,
    )  # fmt: skip
    found = auditing.audit(request)
    assert [line.attack for line in found.lines] == ["asked"]
    assert "every try gives the answer away" in found.left_out["name"]
    with pytest.raises(UserError, match="None of the attacks was possible"):
        auditing.audit(replace(request, attacks=("name",), force=True))


@pytest.mark.parametrize(
    ("name", "floor", "expected"),
    [("membership", 0.2, 0.5), ("membership", 0.7, 0.7), ("asked", 0.2, 0.2)],
)
def test_no_floor_of_membership_is_below_guessing(name, floor, expected):
    def found(share):
        return Found(questions=4, found=None, share=share, tries=[])

    request = AuditRequest(find_checkpoint("toy:gold"), [], Path("out"), gold=find_checkpoint("toy:gold"))
    assert auditing._line(name, {"now": found(0.9), "floor": found(floor)}, request).floor == expected


@pytest.mark.parametrize(("floor", "gold", "told"), [(0.05, False, True), (0.05, True, False), (0.3, True, True)])
def test_a_trace_of_the_edit_is_told_beside_what_gold_gives(floor, gold, told):
    shares = {"now": 0.0, "original": 0.9, "floor": floor}
    found = {role: Found(questions=4, found=None, share=share, tries=[]) for role, share in shares.items()}
    model = find_checkpoint("toy:gold")
    request = AuditRequest(model, [], Path("out"), gold=model if gold else None)
    assert bool(auditing._traces(request, auditing.Results(found={"membership": found}))) == told
    assert not auditing._traces(request, auditing.Results(found={"asked": found}))


def test_weights_that_are_quantised_are_not_rounded_again():
    class Packed:
        quantised = "4bit"

    assert models.why_not("int8", Packed())
    assert not models.why_not("asked", Packed())
