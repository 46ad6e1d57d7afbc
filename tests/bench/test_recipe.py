"""Recipes: read, checked, and typing errors answered with the nearest name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kvw
from kvw.bench.recipe import read_recipe
from kvw.methods.registry import build_settings, combinations

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
GOOD = """
title = "small"
[benchmark]
name = "toy"
[models]
vanilla = "toy:vanilla"
[[method]]
name = "kvw"
gamma = [0.1, 0.2]
schedule = "one-shot"
layers = "0:5"
"""


def written(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_lists_are_values_to_try(tmp_path):
    (method,) = read_recipe(written(tmp_path, GOOD)).method
    assert method.settings == [{"gamma": gamma, "schedule": "one-shot", "layers": "0:5"} for gamma in (0.1, 0.2)]
    built = build_settings("kvw", method.settings[1])
    assert (built.gamma, built.layers, built.schedule) == (0.2, (0, 5), "one-shot")
    assert combinations("kvw", {}) == [{}]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path):
    assert read_recipe(path).title


def test_there_are_shipped_recipes():
    assert {"toy.toml", "clear-qwen2-vl-2b.toml", "mllmu-llava-1.5-7b.toml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('name = "toy"', 'name = "toyy"', ["no benchmark 'toyy'", "did you mean 'toy'"]),
        ("[models]", "[modles]", ["no key 'modles'", "did you mean 'models'"]),
        ("vanilla =", "vanila =", ["no key 'vanila'", "[models]", "did you mean 'vanilla'"]),
        ('name = "kvw"', 'name = "kwv"', ["no method 'kwv'", "did you mean 'kvw'"]),
        ("gamma =", "gama =", ["no setting 'gama'", "did you mean 'gamma'"]),
        ("[0.1, 0.2]", "[0.1, -1.0]", ["gamma must be a positive number"]),
        ("[0.1, 0.2]", "[]", ["lists no value"]),
        ('"0:5"', '"5"', ["first and the last layer"]),
        ("[models]", "[choice]\nkeep = 1.5\n[models]", ["choice.keep", "less than or equal to 1"]),
        ('name = "toy"', 'name = "toy"\nsetting = "forget11"', ["no setting 'forget11'", "forget10"]),
        ("title", "title =", ["is not a TOML file"]),
        ('title = "small"', "", ["title cannot be used"]),
    ],
)
def test_mistakes_are_answered(tmp_path, before, after, words):
    with pytest.raises(kvw.UserError) as caught:
        read_recipe(written(tmp_path, GOOD.replace(before, after, 1)))
    for word in words:
        assert word in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(kvw.UserError, match="no recipe"):
        read_recipe(tmp_path / "no.toml")


@pytest.mark.parametrize("arguments", [["bench", "ls"], ["bench", "validate", str(SHIPPED[0])]])
def test_listing_and_validating_load_nothing_heavy(arguments):
    code = f"import sys; from kvw.cli import main\ntry: main({arguments!r})\nfinally: print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert not set(found.stdout.splitlines()[-1].split()) & {"torch", "transformers", "datasets"}
