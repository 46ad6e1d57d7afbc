"""What the demo says in words, of the methods that the registry names."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from PIL import Image
from tests.pages.records import record, selection, split, summary

from kvw.methods.registry import DEFAULT, PUBLISHED, get_method
from kvw.records.samples import Reply, Row
from kvw.report.plots import BARS, GOLD, demo_figure, plot_demo
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


def rows() -> list[Row]:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(buffer, "JPEG")
    picture = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def row(split: str, number: int, now: str) -> Row:
        answer = f"answer {number}"
        replies = {
            "original": Reply(answer, "correct", True, 1.0),
            "unlearned": Reply(now, "", now == answer, float(now == answer)),
        }
        return Row(split, f"Who is {number}?", answer, replies, picture)

    gone, kept = [row("forget", number, "nobody") for number in range(5)], [row("retain", 9, "answer 9")]
    return [*gone, row("forget", 7, "answer 7"), *kept]


def test_faces_come_first_and_no_colour_is_used_twice(found: DemoRecord) -> None:
    splits = {"forget": split(36, 0), "retain": split(36, 36, about="others")}
    figure = demo_figure(found.model_copy(update={"run": record(splits, selection=selection())}), rows())
    *faces, sweep, accessor, share = figure.axes
    texts = [" ".join(one.texts[0].get_text().split()) for one in faces if one.texts]
    assert [bool(one.images) for one in faces] == [True] * 4 + [True, False, False, False]
    assert texts[0].startswith("Who is 0? before: answer 0")
    assert "after: nobody" in texts[0]
    assert "after: answer 7" in texts[1]  # what is still answered is not hidden
    assert "Who is 9?" in texts[4]
    colours = [line.get_color() for line in (*sweep.lines, *share.lines)] + [BARS]
    assert len({to_hex(one) for one in colours}) == len(colours) == 9
    labels = {line.get_label(): line for line in sweep.lines}
    gold = labels["forget, gold model (never knew them)"]
    assert gold.get_color() == GOLD
    assert gold.get_linewidth() == max(line.get_linewidth() for line in sweep.lines)
    assert accessor.patches


@pytest.mark.thorough
def test_a_picture_is_drawn(found: DemoRecord, tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("")
    plot_demo(found, tmp_path / "samples.jsonl", tmp_path / "tradeoff.png")
    assert (tmp_path / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
