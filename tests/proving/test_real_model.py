"""One small request from beginning to end on the real pretrained model."""

from __future__ import annotations

import os

import pytest
from tests.conftest import USER_CACHE

from kvw import smollm2
from kvw.errors import UserError
from kvw.models.checkpoint import Checkpoint, find_checkpoint
from kvw.proving import plain_text
from kvw.proving.facts import Fact, domains, facts
from kvw.proving.known import known_facts
from kvw.proving.requests import make_requests
from kvw.proving.run import ProvingGround
from kvw.proving.table import markdown
from kvw.proving.verdict import mean

SUBJECTS = ("France", "Japan", "Italy", "Spain", "Portugal", "Greece", "Austria", "Poland", "Egypt", "Cuba")
OPTIONS = {"settings": {"matrices": "ffn", "gate": "thresholded wiener"}, "evaluate_at_most": 8, "max_new_tokens": 12}


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    own = os.environ["KVW_CACHE"]
    monkeypatch.setenv("KVW_CACHE", str(USER_CACHE))
    try:
        found = find_checkpoint(smollm2.NAME)
    except UserError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("KVW_CACHE", own)
    return found


@pytest.mark.slow
def test_a_request_forgets_what_the_model_knew(checkpoint, tmp_path, monkeypatch):
    sentences = plain_text.plain_text()[:20]
    monkeypatch.setattr(plain_text, "plain_text", lambda: sentences)
    candidates = [fact for fact in facts() if fact.subject in SUBJECTS and fact.domain.name == "capital"]
    known = known_facts(checkpoint, candidates=[*candidates, Fact(domains()["capital"], "Velmoria", "Tarsin")])
    assert len(known) >= 8
    assert {fact.subject for fact in known} <= set(SUBJECTS)
    (request,) = make_requests(known, "choosing", {1: 1})
    (record,) = ProvingGround(checkpoint, tmp_path / "out", OPTIONS).run([request])
    assert record.state == "written"
    for split in ("forget", "retain"):  # by the rule of what is known
        assert mean(record.splits[split], "chosen", "before") >= 0.75
    assert mean(record.splits["forget"], "given", "before") >= 0.5
    assert mean(record.splits["floor"], "given", "before") == 0
    before, after = (
        sum(getattr(item, when).probability for item in record.splits["forget"]) for when in ("before", "after")
    )
    assert after < before / 2
    assert 5 < record.perplexity.before < 200
    assert "| forget | 4 |" in markdown([record])
