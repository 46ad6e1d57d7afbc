"""Whenever a command is killed, its output is the old one, the new one, or absent if it was absent before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "kills", [pytest.param(8, marks=pytest.mark.thorough), pytest.param(200, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("scenario", ["erase", "erase force", "apply", "apply force", "bench"])
def test_the_output_is_never_wrong_half_or_missing(tmp_path, scenario, kills):
    command = [sys.executable, "-m", "tests.runs.kills", scenario, str(kills), str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    seen = json.loads(found.stdout)
    print(seen)
    assert seen["killed"] > 0  # the first one comes before the first call, whatever time a run takes
