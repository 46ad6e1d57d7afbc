"""The page of an audit: what it says, and that it shows no question unless that is asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kvw.pages.audit_page import audit_page
from kvw.records.audit import AttackLine, AuditData, AuditRecord, Share, Try
from kvw.records.run import CostPart, DataPart, ModelPart


def line(attack, verdict, found, **more):
    share = Share(questions=4, found=found, share=(found or 0) / 4, **more)
    return AttackLine(
        attack=attack, title=f"title of {attack}", now=share, original=Share(questions=4, found=4, share=1.0),
        floor=0.0, floor_by="subjects that do not exist", floor_questions=4, excess=share.share, verdict=verdict,
    )  # fmt: skip


def tried(number, reply, *, found):
    return Try(identifier=f"q{number}", asked=f"<b>Secret {number}?", answer="Lima", reply=reply, found=found)


def record(lines, name="some-model", **more):
    model = ModelPart(
        name=name, revision="", fingerprint="f" * 64, model_type="llama", dtype="float32", parameters=1000
    )
    now = [tried(number, f"reply {number}", found=number == 3) for number in range(5)]
    return AuditRecord(
        finished=datetime(2026, 1, 2, tzinfo=UTC), model=model, original=model, gold=None, edit_digest="e" * 64,
        edit_method="subspace",
        data=AuditData(forget=DataPart(file="f.jsonl", count=4, digest="0"), asked=4, retain=None, rephrasings=None),
        settings={"attacks": ["asked"], "threshold": 0.1, "samples": 20}, lines=lines,
        left_out={"photo": "no question has a photo"}, verdict=["First sentence.", "Second one."], warnings=[],
        costs=CostPart(device="cpu", seconds={"a": 30.0, "b": 60.0}, peak_memory_bytes={}, model_bytes=1),
        versions={"kvw": "1"},
        answers={one.attack: {"now": now, "original": [tried(3, "it was Lima", found=True)]} for one in lines}, **more,
    )  # fmt: skip


def test_the_page_has_the_verdict_and_every_attack():
    text = audit_page(record([line("asked", "holds", 0), line("relearn-retain", "comes back", 3, losses=[[2.0, 0.5]])]))
    parts = ["First sentence.", "Second one.", "title of asked", "comes back", "75\N{NO-BREAK SPACE}%", "1.5 min"]
    for part in (*parts, "no question has a photo", "training loss 2.000", "subjects that do not exist"):
        assert part in text
    assert "Secret" not in text
    assert "reply" not in text


@pytest.mark.parametrize(
    ("verdicts", "mark"),
    [(["holds"], "good"), (["holds", "comes back"], "bad"), (["holds", "says nothing"], "part"),
     (["says nothing"], "unknown")],
)  # fmt: skip
def test_its_mark_is_that_of_the_attacks(verdicts, mark):
    text = audit_page(record([line(f"attack {number}", one, 0) for number, one in enumerate(verdicts)]))
    assert f'<p class="mark {mark}">' in text


def test_examples_are_shown_on_request_and_those_that_came_back_first():
    lines = [line("asked", "comes back", 1)]
    text = audit_page(record(lines), show_examples=True)
    assert "Do not publish" in text
    assert [text.count(f"reply {number}") for number in range(5)] == [1, 1, 0, 1, 0]
    assert text.index("reply 3") < text.index("reply 0")
    assert "it was Lima" in text
    assert "<b>Secret" not in text
    assert "made up" in audit_page(record(lines, name="toy:vanilla"))
    assert "reply 3" in audit_page(record(lines, name="toy:vanilla"))
