"""What is imported and said at once loads no library of models: one process goes through all of it, the lightest first.

What one step imports is there in the steps after it, too; the first that has it is to blame.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[1] / "recipes"
COMMAND = "from kvw.cli import main; main({!r})"
MODELS = ("torch", "transformers", "peft", "accelerate")
OTHERS = ("starlette", "nltk", "scipy")
PICTURES = ("numpy", "PIL", "matplotlib")
COST = "title = 'small'\n[model]\nconfig = 'llava-100m'\n[[method]]\nname = 'kvw'\nschedule = 'one-shot'\n"
SAID = [
    *("--help", "erase --help", "--version", "edit --help", "edit scale --help", "serve --help"),
    *("measure", "nonsense", "edit export", "serve toy:vanilla", "report nowhere"),
]
"""Lines of the command; the last five are mistakes."""
STEPS = [
    ("import kvw", 0, (*MODELS, *PICTURES)),
    *(
        (COMMAND.format(line.split()), 0 if "--" in line else 2, (*MODELS, *PICTURES, "starlette", "nltk", "scipy"))
        for line in SAID
    ),
    ("import kvw.toy", 0, MODELS),
    ("import kvw.methods.subspace.settings, kvw.methods.subspace.baselines.settings", 0, MODELS),
    (
        "from kvw.methods.registry import METHODS, get_method\n[get_method(name).summary for name in METHODS]",
        *(0, MODELS),
    ),
    (
        "from kvw.bench.benchmarks import BENCHMARKS, get_benchmark\n[get_benchmark(name) for name in BENCHMARKS]",
        *(0, (*MODELS, "datasets", "huggingface_hub")),
    ),
    ("import kvw.data", 0, MODELS),
    ("from kvw.bench.cost.recipe import read_cost_recipe\nread_cost_recipe(Path('cost.toml'))", 0, MODELS),
    (COMMAND.format(["bench", "ls"]), 0, (*MODELS, "datasets")),
    *((COMMAND.format(["bench", "validate", str(path)]), 0, (*MODELS, "datasets")) for path in RECIPES.glob("*.toml")),
]
PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
for step, _, heavy in json.loads(sys.stdin.read()):
    code, said = 0, io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            exec(step, {"Path": Path})
    except SystemExit as stop:
        code = stop.code or 0
    print(json.dumps([step, code, sorted(set(sys.modules) & set(heavy)), said.getvalue()]), flush=True)
"""


def tell(steps, folder):
    """What each step does: its code, its exit code, what heavy modules are there, and what it said."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        **{"input": json.dumps(steps), "cwd": folder, "capture_output": True, "text": True, "check": False},
    )
    told = [json.loads(line) for line in found.stdout.splitlines()]
    assert [step for step, *_ in told] == [step for step, *_ in steps], found.stderr
    return told


@pytest.mark.thorough
def test_what_is_light_loads_no_library_of_models(tmp_path):
    (tmp_path / "cost.toml").write_text(COST)
    assert len(STEPS) > 25
    for (step, code, _), (_, ended, loaded, said) in zip(STEPS, tell(STEPS, tmp_path), strict=True):
        assert (ended, loaded) == (code, []), (step, said)


def test_what_is_heavy_is_seen(tmp_path):
    steps = [("import json", 0, MODELS), ("import numpy", 0, ("numpy",)), ("x = 1", 0, ("numpy",))]
    assert [loaded for _, _, loaded, _ in tell(steps, tmp_path)] == [[], ["numpy"], ["numpy"]]
