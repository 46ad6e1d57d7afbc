"""What ships turns the real pretrained model into one that knows people by photo and by name."""

from __future__ import annotations

import pytest
from tests.conftest import USER_CACHE

from kvw import smollm2
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.models.checkpoint import find_checkpoint
from kvw.proving.photos.making import MAKING, model_before
from kvw.proving.photos.part import photo_requests
from kvw.training.adapters import merge_adapter


@pytest.mark.slow
def test_planted_knows_and_gold_does_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVW_CACHE", str(USER_CACHE))
    try:
        find_checkpoint(smollm2.NAME)
    except UserError as error:
        pytest.skip(str(error))
    splits = photo_requests("reporting")[0].splits
    asked = {split: splits[split] for split in ("forget", "held_out", "unused")}
    exact: dict[str, dict[str, float]] = {}
    for name in ("planted", "gold-reporting"):
        model, processor = model_before()
        merge_adapter(model, MAKING.shipped / name)
        found = evaluate(model, processor, asked, max_new_tokens=12)
        exact[name] = {split: summary.exact for split, summary in found.summaries.items()}
    assert min(exact["planted"].values()) >= 0.8
    assert exact["gold-reporting"]["unused"] >= 0.8
    assert max(exact["gold-reporting"][split] for split in ("forget", "held_out")) <= 0.2
