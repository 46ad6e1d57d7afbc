"""What is printed: the demo ends with the way to a pretrained model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.pages.records import record, split

from kvw import smollm2
from kvw.cache import cache_directory
from kvw.methods.bounds import DistortionBounds
from kvw.report.tables import print_demo, print_record
from kvw.runs.sweep import SweepPoint


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    record: Any = SimpleNamespace(
        people=40, forgotten=4, models=(), splits={}, sweep=[SweepPoint(gamma=0, exact={})], verdict=["Forgotten: 4."]
    )
    print_demo(record, Path("demo-run"))
    return " ".join(capsys.readouterr().out.split())


def test_the_demo_offers_the_pretrained_model_and_says_how_to_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys)
    assert "Toys test code." in told
    assert told.endswith(f"{smollm2.COMMAND} (once), then kvw erase smollm2:135m --forget FILE --out run")
    folder = cache_directory() / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    told = printed(capsys)
    assert smollm2.COMMAND not in told
    assert told.endswith("kvw erase smollm2:135m --forget FILE --out run")


def test_a_bound_of_more_than_all_energy_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    bounds = DistortionBounds(
        key="layer.3",
        shrinkage=0.1,
        threshold=1.0,
        subjects=1,
        inseparable=(),
        eigenvalues=(),
        held_out_eigenvalues=None,
        gates=(),
        participation_ratio=(),
        resistance=(),
        distortion=1.0,
        relative_distortion=0.012,
        source_bounds={"answer": 0.025, "image": 6.141},
    )
    print_record(record({"forget": split(36, 0)}, distortion_bounds=[bounds]), Path("run"))
    assert (
        "by at most 1.20% of their energy (layer.3; at most, by kind of position: answer 2.5%; too few positions of "
        "kind image for a bound)."
    ) in " ".join(capsys.readouterr().out.split())
