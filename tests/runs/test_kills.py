"""Whenever a command is killed, its output is the old one, the new one, or absent if it was absent before."""

from __future__ import annotations

import pytest
from tests.runs.kills import kill
from tests.several_processes import run_alone


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.thorough), pytest.param(200, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "scenario",
    [
        "erase force",
        "bench",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("erase", "apply", "apply force")),
    ],
)
def test_the_output_is_never_wrong_half_or_missing(tmp_path, scenario, kills):
    ended = run_alone(kill, scenario, kills, tmp_path, folder=tmp_path / "logs")
    assert ended.code == 0, ended.errors
    print(ended.result)
    assert ended.result["killed"] > 0  # the first one comes before the first call, whatever time a run takes
