"""``kvw inspect activations``, from a file of questions to the page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.program import assert_refused, run

from kvw.runs.activations import ratios

ROWS = [
    {"question": f"Who is number {place}?", "answer": f"Person {place}", "subject": f"P{place}"} for place in range(6)
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, rows in {"forget": ROWS[:3], "retain": ROWS[3:]}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_the_ratio_is_of_means_over_all_examples() -> None:
    def read(values: list[float], classes: list[str]) -> Any:
        return SimpleNamespace(mean={0: torch.tensor(values)}, weighted={0: torch.zeros(len(values))}, classes=classes)

    found = ratios([read([1.0, 4.0], ["question", "answer"]), read([3.0, 8.0, 12.0], ["image", "answer", "answer"])])
    assert found[0].mean == pytest.approx(8.0 / 2.0)
    assert found[0].weighted is None


@pytest.mark.thorough
def test_a_page_for_the_toy(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["inspect", "activations", "toy:vanilla", "--data", files / "forget.jsonl"]
    assert run(*command, "--out", files / "a.html", "--examples", 2, "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert len(alone["examples"]) == 2
    assert [one["layer"] for one in alone["ratios"]] == list(range(6))
    assert alone["retain"] == ""
    page = (files / "a.html").read_text()
    assert "Held against" in page
    assert (files / "a.html").stat().st_mode & 0o077 == 0
    retain = ["--retain", files / "retain.jsonl", "--examples", 1]
    assert run(*command, *retain, "--out", files / "b.html", "--json") == 0
    against = json.loads(capsys.readouterr().out)
    assert against["examples"][0]["mean"] == alone["examples"][0]["mean"]
    assert against["examples"][0]["weighted"] != alone["examples"][0]["weighted"]
    assert_refused(capsys, run(*command, "--out", files / "a.html"), "exists")
    assert_refused(
        capsys, run(*command, "--out", files / "c.html", "--examples", 0), "--examples must be at least 1", "0"
    )


def test_inspect_shows_the_structure_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", "toy:vanilla", "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers"] == 6
