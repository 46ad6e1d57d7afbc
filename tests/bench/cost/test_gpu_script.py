"""The prepared script for an accelerator: what it asks for, and that it ends in time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kvw.bench.cost.recipe import read_cost_recipe

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "cost_gpu.sh"
STUB = """#!/bin/sh
echo "$@" >>"$CALLS"
while [ $# -gt 1 ]; do shift; done
mkdir -p "$1/rows" && touch "$1/rows/x.json"
{more}
"""


def call(folder, *words, more="", **environment):
    stub = folder / "python"
    stub.write_text(STUB.format(more=more))
    stub.chmod(0o700)
    told = {**os.environ, "PYTHON": str(stub), "CALLS": str(folder / "calls"), **environment}
    ended = subprocess.run(
        ["sh", str(SCRIPT), *words, str(folder / "out")], env=told, capture_output=True, text=True, check=False
    )
    return ended, [line.split() for line in (folder / "calls").read_text().splitlines()]


def test_both_shapes_are_measured_with_the_short_recipes(tmp_path):
    ended, calls = call(tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [words[3:6:2] for words in calls] == [["cost", "--out"]] * 2
    for words, shape in zip(calls, ("qwen2-vl-2b", "llava-1.5-7b"), strict=True):
        assert words[4] == f"recipes/cost/gpu/{shape}.toml"
        recipe = read_cost_recipe(ROOT / words[4])
        assert recipe.model.config == shape
        assert {part.label for part in recipe.method} >= {
            *("KVW one-shot", "subspace", "GradDiff, LoRA 8", "GradDiff, full AdamW"),
        }
    assert "llava-1.5-7b: measured x.json" in ended.stdout


def test_a_dry_run_has_the_same_methods_on_the_toy(tmp_path):
    _, calls = call(tmp_path, "--dry-run")
    assert [words[4] for words in calls] == ["recipes/cost/gpu/dry-run.toml"]
    labels = [[part.label for part in read_cost_recipe(path).method] for path in (ROOT / "recipes/cost/gpu").glob("*")]
    assert all(one == labels[0] for one in labels)


@pytest.mark.thorough
@pytest.mark.parametrize(("more", "code"), [("sleep 9", 124), ("exit 2", 2)])
def test_what_takes_too_long_is_stopped_and_the_other_shape_is_measured(tmp_path, more, code):
    ended, calls = call(tmp_path, more=more, SECONDS_EACH="2")  # a busy machine begins late
    assert ended.returncode == code
    assert len(calls) == 2
    assert ended.stdout.count("measured x.json") == 2
