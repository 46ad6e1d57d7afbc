"""``kvw sweep layers``: one solve, cut to ranges of layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.program import assert_refused, run

from kvw.progress import unheard
from kvw.records.layer_sweep import LayerCurve, LayerPoint, LayerSweep
from kvw.report.layer_sweep import plot_layers, print_layers
from kvw.runs import sweep_layers
from kvw.runs.sweep_layers import _spread

FORGET = [
    {"question": question, "answer": answer, "subject": "Ada"}
    for question, answer in (("Who is it?", "Ada Lark."), ("What is her job?", "A baker."))
]
RETAIN = [
    {"question": f"Who is number {place}?", "answer": f"Person {place}", "subject": f"P{place}"} for place in range(10)
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, rows in {"forget": FORGET, "retain": RETAIN}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def point(dose: float, answered: int, left: float, *kept: float) -> LayerPoint:
    return LayerPoint(dose=dose, answered=answered, left=left, kept=dict(zip("ab", kept, strict=False)))


CURVES = [
    LayerCurve(
        first=0, last=9, points=[point(1, 2, 0.8, 1.0, 0.99), point(4, 1, 0.3, 0.98, 1.01), point(9, 0, 0.1, 0.7)]
    ),
    LayerCurve(first=0, last=4, points=[point(3, 1, 0.5, 0.9, 0.97)]),
]
SWEEP = LayerSweep(
    model="m",
    method="kvw",
    settings={},
    unit="strength",
    keep=0.98,
    questions=2,
    answered=2,
    must_stay={},
    curves=CURVES,
)


def test_the_strongest_that_keeps_and_the_cheapest_that_forgets() -> None:
    (whole, half) = CURVES
    assert whole.strongest(0.98) is whole.points[1]
    assert whole.strongest(0.985) is whole.points[0]
    assert whole.cheapest() is whole.points[2]
    assert half.strongest(0.98) is None
    assert half.cheapest() is None


@pytest.mark.thorough
def test_the_table_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_layers(SWEEP, tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    assert "0:9 │ 0.300 │ 1 of 2 │ 4 │ 0.700" in shown
    assert "0:4 │ 1.000 │ 2 of 2 │ - │ -" in shown
    plot_layers(SWEEP, tmp_path / "sweep.png")
    assert Image.open(tmp_path / "sweep.png").size[0] > 500
    plot_layers(SWEEP, tmp_path / "sweep.svg")
    assert "0:4" in (tmp_path / "sweep.svg").read_text() or "<path" in (tmp_path / "sweep.svg").read_text()


@pytest.mark.parametrize(("most", "found"), [(9, [0, 1, 2, 3, 4]), (2, [0, 4]), (3, [0, 2, 4])])
def test_doses_from_all_over_the_path(most: int, found: list[float]) -> None:
    assert _spread([0.0, 1.0, 2.0, 3.0, 4.0], most) == found


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "unit", "points"), [(["subspace"], "directions", 2), (["kvw", "--gamma", 0.01], "strength", 1)]
)
def test_a_sweep_of_the_toy(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[object],
    unit: str,
    points: int,
) -> None:
    monkeypatch.setattr("kvw.runs.sweep_layers.WRECK", 0.0 if points > 1 else 9.0)
    command = ["sweep", "layers", "toy:vanilla", "--forget", files / "forget.jsonl", "--retain", files / "retain.jsonl"]
    layers = ["--layers", "0:5", "--windows", "all,0:1", "--points", 2, "--keep", 0.5, "--retain-sources", "none"]
    make, heard = sweep_layers.scorer_for, []
    monkeypatch.setattr(sweep_layers, "scorer_for", lambda *given: heard.append(given[-1]) or make(*given))
    assert run(*command, *layers, "--method", *options, "--json", "--out", files / "out") == 0
    assert heard == [unheard], "edits would be told as the original model"
    found = LayerSweep.model_validate_json(capsys.readouterr().out)
    assert found == LayerSweep.model_validate_json((files / "out" / "sweep.json").read_text())
    assert (files / "out" / "sweep.png").is_file()
    assert (found.method, found.unit, found.questions, found.keep) == (options[0], unit, 2, 0.5)
    assert [curve.title for curve in found.curves] == ["0:5", "0:1"]
    assert [len(curve.points) for curve in found.curves] == [points, points]
    assert found.curves[0].points[-1].left != found.curves[1].points[-1].left
    assert list(found.must_stay) == ["held-out retain"]
    assert (files / "out").stat().st_mode & 0o077 == 0


def test_mistakes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "layers", "toy:vanilla", "--forget", files / "forget.jsonl", "--out", files / "out"]
    assert_refused(capsys, run(*command, "--windows", "some"), "--windows names ranges of layers", "some")
    assert_refused(capsys, run(*command, "--points", 1), "--points must be at least 2")
    assert_refused(capsys, run(*command, "--strength", 0.5), "tries many strengths by itself")
    assert not (files / "out").exists()
