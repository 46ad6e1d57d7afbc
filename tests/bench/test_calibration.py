"""Methods at equal retention: the search, the numbers, the ends of the mixture, and the command."""

from __future__ import annotations

import csv
import io
import json
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.bench.records import FOLDS, MANIFEST
from tests.bench.test_training import FAST, trained
from tests.gradient import changed, fresh, weights_of

import kvw
from kvw.bench.calibration import run as calibration_run
from kvw.bench.calibration import search
from kvw.bench.calibration.record import Strength
from kvw.bench.calibration.results import Calibrated, kept, summarise_calibration
from kvw.bench.calibration.search import GRID, Curve
from kvw.bench.changes import EditChange, TrainedChange
from kvw.cli import main
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.methods.registry import get_method
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey
from kvw.report.calibration_tables import calibration_table

RECIPE = """
title = "small"
[benchmark]
name = "toy"
[models]
vanilla = "toy:vanilla"
gold = "toy:gold"
[evaluation]
at_most = 8
tasks = ["forget/seen", "retain/seen", "retain/text"]
[choice]
keep = 0.5
[[method]]
name = "kvw"
schedule = "one-shot"
layers = "0:5"
gamma = 0.8
"""


@pytest.mark.parametrize("place", [0.3, 0.5, 0.97])
def test_the_largest_share_that_keeps_enough_is_found_to_a_part_of_the_grid(place):
    curve = Curve(lambda share: 1 - 0.2 * share / place)
    found = curve.largest(0.8)
    assert curve.points[found] >= 0.8 - 1e-12
    assert place - 1 / 128 < found <= place
    assert len(curve.points) == GRID + 1 + 3


def test_a_score_that_rises_again_counts_up_to_its_last_crossing():
    scores = {step / GRID: 1.0 for step in range(GRID + 1)} | {0.25: 0.1, 0.875: 0.1, 0.9375: 0.1, 1.0: 0.1}
    curve = Curve(lambda share: scores.get(share, 0.0))
    assert curve.largest(0.9) == 0.8125
    assert curve.largest(0.0) == 1.0
    assert Curve(lambda share: float(share == 0)).largest(0.5) == 0


def test_no_share_is_chosen_by_a_score_that_is_not_a_number():
    with pytest.raises(kvw.UserError, match="not a number"):
        Curve(lambda share: float("nan")).largest(0.9)


def strengths(**values):
    """One item of the task for each person; ``forget_a=0.5`` is person a of the forget split."""
    parts = [(name.split("_"), value) for name, value in values.items()]
    return [
        Strength(split=split, task=rest[0] if len(rest) > 1 else "seen", subject=rest[-1], value=value)
        for (split, *rest), value in parts
    ]


def test_the_retain_task_that_keeps_least_counts():
    whole = strengths(retain_seen_e=1.0, retain_text_e=0.5, retain_none_e=0.0)
    assert kept(strengths(retain_seen_e=0.9, retain_text_e=0.25, retain_none_e=0.5), whole) == pytest.approx(0.5)
    assert kept(whole, whole) == 1
    assert kept([], strengths(retain_e=0.0)) == 1


def results(gold=0.2):
    vanilla = strengths(forget_a=0.8, forget_c=1.0, retain_e=1.0, retain_g=0.8)
    other = strengths(forget_a=gold, forget_c=gold, retain_e=1.0, retain_g=1.0) if gold is not None else None
    methods = [
        Calibrated("kvw", half, {0.9: 0.25 + half}, {0.9: strengths(**items)}, {0.0: 1.0, 0.25: 0.95})
        for half, items in ((0, {"forget_c": 0.6, "retain_g": 0.72}), (1, {"forget_a": 0.4, "retain_e": 0.9}))
    ]
    return summarise_calibration(MANIFEST, [0.9], vanilla, other, methods)


def test_both_halves_of_a_method_are_put_together_and_gold_is_the_end_of_the_way():
    assert {FOLDS[person] for person in "ae"} == {0}
    lines = {line.model: line for line in results().lines}
    assert list(lines) == ["vanilla", "kvw", "gold"]
    assert lines["kvw"].shares == [0.25, 1.25]
    assert lines["kvw"].kept == pytest.approx(0.9)
    assert lines["kvw"].cells[0].mean == pytest.approx(0.5)
    assert [lines[name].way_to_gold for name in lines] == pytest.approx([0, (0.9 - 0.5) / 0.7, 1])
    assert [line.way_to_gold for line in results(gold=None).lines] == [None, None]
    assert [line.way_to_gold for line in results(gold=0.9).lines] == [None] * 3


def test_the_forms_of_the_table_have_the_same_numbers():
    text = calibration_table(results()).text("markdown")
    assert "| 0.9 | kvw | 0.250, 1.250 | 0.900 | 0.57 | 0.500" in text
    assert "0.900 & 0.57 & 0.500" in calibration_table(results()).text("latex")
    rows = list(csv.DictReader(io.StringIO(calibration_table(results()).text("csv"))))
    assert [row["mean"] for row in rows if (row["model"], row["split"]) == ("kvw", "forget")] == ["0.5"]
    assert [row["tau"] for row in rows] == ["", "", "0.9", "0.9", "", ""]


def outputs(model, change=None):
    with torch.no_grad(), change.on(model) if change else nullcontext():
        return model(input_ids=torch.arange(5)[None]).logits


def test_the_ends_of_an_edit_are_the_model_and_the_edit_to_the_bit(llava):
    width = find_value_matrices(llava)[0].width
    edit = EditChange(GateEdit({MatrixKey(0): torch.linspace(-3, 0, width)}))
    assert torch.equal(outputs(llava, edit.at(0.0)), outputs(llava))
    assert torch.equal(outputs(llava, edit.at(1.0)), outputs(llava, edit))
    half = outputs(llava, edit.at(0.5))
    assert not torch.equal(half, outputs(llava, edit))
    assert not torch.equal(half, outputs(llava))


def test_all_of_an_edit_of_directions_is_the_edit_to_the_bit(llava):
    """Gates that are mixed are rounded once more."""
    width = find_value_matrices(llava)[0].width
    patterns = torch.linalg.qr(torch.randn(width, 3, generator=torch.Generator().manual_seed(0)))[0]
    directions = Directions(patterns, patterns.clone(), torch.tensor([-0.3, -1.7, -2.9]))
    edit = EditChange(LowRankEdit({MatrixKey(0): directions}))
    assert edit.at(1.0).digest == edit.digest
    assert edit.at(0.5).digest != edit.digest
    assert torch.equal(outputs(llava, edit.at(0.0)), outputs(llava))


@pytest.mark.thorough
def test_a_part_of_a_trained_adapter_is_the_adapter_scaled(tmp_path):
    model, processor = fresh()
    settings = get_method("ga").read({**FAST, "lora.rank": 3, "lora.dropout": 0.0})
    before = weights_of(model)
    trained(model, processor, settings, tmp_path / "ga")
    change = TrainedChange(tmp_path / "ga")
    with change.at(0.0).on(model):
        assert changed(model, before) == set()
    with change.on(model):
        whole = weights_of(model)
    with change.at(1.0).on(model):
        assert changed(model, whole) == set()
    tensors = load_file(tmp_path / "ga" / "adapter_model.safetensors")
    scaled = {name: value * 0.25 if "lora_B" in name else value for name, value in tensors.items()}
    save_file(scaled, tmp_path / "ga" / "adapter_model.safetensors", {"format": "pt"})
    with change.on(model):
        wanted = weights_of(model)
    save_file(tensors, tmp_path / "ga" / "adapter_model.safetensors", {"format": "pt"})
    with change.at(0.25).on(model):
        for name, value in weights_of(model).items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=3e-7)
        assert changed(model, before)
    assert changed(model, before) == set()


def kvw_exits(*arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


@pytest.mark.thorough
@pytest.mark.usefixtures("small_toy")
def test_a_finished_run_is_calibrated_once(tmp_path, capsys, monkeypatch):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.setattr(search, "GRID", 4)  # how fine the search is has tests of its own
    run = tmp_path / "run"
    assert kvw_exits("bench", "run", str(tmp_path / "recipe.toml"), "--out", str(run)) == 0
    command = ["bench", "calibrate", str(run), "--tau", "1,0.9,0"]
    capsys.readouterr()
    assert kvw_exits(*command) == 0
    first = capsys.readouterr().out
    found = json.loads((run / "calibration.json").read_text())
    lines = {(line["model"], line["tau"]): line for line in found["lines"]}
    assert set(lines) == {("vanilla", None), ("gold", None), *(("kvw", tau) for tau in (1.0, 0.9, 0.0))}
    assert lines["kvw", 0.0]["shares"] == [1.0, 1.0]
    assert lines["vanilla", None]["way_to_gold"] == 0
    assert lines["gold", None]["way_to_gold"] == 1
    ways = [lines["kvw", tau]["way_to_gold"] for tau in (1.0, 0.9, 0.0)]
    assert ways == sorted(ways)
    assert ways[0] < ways[2]
    for curve in found["curves"].values():
        points = dict(curve)
        assert points[0.0] == 1
        assert points[1.0] < 1
    # All of the change is what the run has asked.
    asked = [json.loads(line) for path in (run / "items").glob("kvw-*") for line in path.read_text().splitlines()]
    strength = [
        one["scores"]["extraction_strength"] for one in asked if one["split"] == "forget" and one["task"] == "seen"
    ]
    place = found["places"].index(["forget", "seen"])
    assert lines["kvw", 0.0]["cells"][place]["mean"] == pytest.approx(sum(strength) / len(strength))
    monkeypatch.setattr(calibration_run, "token_scores", lambda *_, **__: pytest.fail("measured again"))
    assert kvw_exits(*command) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("tau", ["1.1", "-0.1", "nan", "much", ","])
def test_a_share_to_keep_lies_between_nothing_and_all(tmp_path, capsys, tau):
    assert kvw_exits("bench", "calibrate", str(tmp_path), "--tau", tau) == 2
    assert "share" in capsys.readouterr().err
