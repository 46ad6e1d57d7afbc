"""What is printed: the demo ends with the way to a pretrained model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvw import smollm2
from kvw.cache import cache_directory
from kvw.report.tables import print_demo
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
