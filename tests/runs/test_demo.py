"""What the demo says in words, of the methods that the registry names."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages.records import record, selection, split, summary

from kvw.methods.registry import DEFAULT, PUBLISHED, get_method
from kvw.report.plots import plot_demo
from kvw.runs.demo import DemoRecord, LayerAccessor
from kvw.runs.sweep import SweepPoint

MODELS = ("vanilla", PUBLISHED, DEFAULT, "gold")


@pytest.fixture
def found() -> DemoRecord:
    scores = {model: summary(10, share) for model, share in zip(MODELS, (1.0, 0.9, 0.5, 0.0), strict=True)}
    splits = ("forget", "forget_new_photos", "retain", "unused", "general")
    return DemoRecord(
        people=40,
        forgotten=4,
        gamma=0.0283,
        splits=dict.fromkeys(splits, scores),
        sweep=[SweepPoint(gamma=gamma, exact=dict.fromkeys(splits, 1.0)) for gamma in (0, 0.02)],
        accessors=[LayerAccessor(layer=layer, mean=0.1, share_positive=0.5) for layer in range(2)],
        run=record({"forget": split(36, 0)}, selection=selection()),
    )


def test_the_verdict_names_both_methods_with_their_own_numbers(found: DemoRecord) -> None:
    strength, forgotten, kept = found.verdict
    assert found.models == MODELS
    assert "98%" in strength
    assert f"({get_method(PUBLISHED).title}: gamma = 0.0283)" in strength
    assert f"90% after {get_method(PUBLISHED).title} and 50% after {get_method(DEFAULT).title}" in forgotten
    assert "gets 0%" in forgotten
    assert kept.count("100%, 90%, 50%") == 3


def test_a_picture_is_drawn(found: DemoRecord, tmp_path: Path) -> None:
    plot_demo(found, tmp_path / "tradeoff.png")
    assert (tmp_path / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
