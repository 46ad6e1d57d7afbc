"""What a dry run says of the time: it follows from what is asked and how fast the model is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.runs.audit.test_questions import FORGET, QUESTIONS, RETAIN

from kvw.models.checkpoint import Checkpoint
from kvw.runs.audit import plan
from kvw.runs.audit.attacks import ATTACKS
from kvw.runs.audit.plan import Speed, Work, work_of
from kvw.runs.audit.request import AuditRequest, AuditSets

REQUEST = AuditRequest(Checkpoint(Path("m"), "m"), [Path("f.jsonl")], Path("out"), edit=Path("e"), steps=7, samples=3)
SETS = AuditSets(FORGET, FORGET, RETAIN, {}, 0, {"photo": "no question has a photo"})


@pytest.mark.parametrize(
    ("attack", "work"),
    [
        ("asked", Work(replies=4)), ("rephrased", Work(replies=20)), ("samples", Work(replies=12)),
        ("choice", Work(answers=16)), ("forced", Work(answers=4)), ("lens-pd", Work(answers=8)),
        ("int8", Work(replies=4)), ("relearn-retain", Work(replies=4, steps=7)),
        ("relearn-forget", Work(replies=4, steps=14)),
    ],
)  # fmt: skip
def test_what_an_attack_takes(attack, work):
    assert work_of(attack, QUESTIONS, REQUEST) == work


def test_the_time_is_that_of_all_models(monkeypatch):
    monkeypatch.setattr(plan.Loaded, "load", lambda *_, **__: SimpleNamespace(fingerprint="f"))
    checked = []
    monkeypatch.setattr(plan, "load_edit", lambda path: path)
    monkeypatch.setattr(plan, "check_weights", lambda edit, weights, *_, **__: checked.append((edit, weights)))
    monkeypatch.setattr(plan, "why_not", lambda name, _: "too few layers" if name == "lens-pd2" else "")
    monkeypatch.setattr(plan, "_speed", lambda *_, trains: Speed(2.0, 1.0, 10.0 if trains else 0.0))
    found = plan.dry_run(REQUEST, sets=SETS)
    assert {one.attack for one in found.attacks} == ATTACKS.keys() - {"photo", "lens-pd2"}
    assert found.left_out == {**SETS.left_out, "lens-pd2": "too few layers"}
    by = {one.attack: one for one in found.attacks}
    assert (by["asked"].models, by["asked"].seconds) == (3, 24.0)  # the model, the original, and about nobody
    assert by["relearn-retain"].seconds == 3 * (4 * 2 + 7 * 10)
    assert found.seconds == pytest.approx(sum(one.seconds for one in found.attacks))
    assert checked == [(REQUEST.edit, "f")]
    alone = plan.dry_run(replace(REQUEST, edit=None, attacks=("asked",)), sets=SETS)
    assert (alone.attacks[0].models, alone.seconds) == (1, 8.0)
