"""Recipes for comparisons of costs."""

from __future__ import annotations

from pathlib import Path

import pytest

import kvw
from kvw.bench.cost.recipe import read_cost_recipe

SHIPPED = sorted((Path(__file__).parents[3] / "recipes" / "cost").rglob("*.toml"))
GOOD = """
title = "small"
[model]
config = "llava-100m"
[[method]]
name = "kvw"
schedule = "one-shot"
[[method]]
name = "npo"
label = "NPO"
lora = { rank = [4, 8] }
"""


def written(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_every_combination_is_a_row_and_the_forward_pass_is_the_first(tmp_path):
    recipe = read_cost_recipe(written(tmp_path, GOOD))
    assert recipe.rows == [
        ("plain forward", "forward", {}),
        ("kvw schedule=one-shot", "kvw", {"schedule": "one-shot"}),
        ("NPO lora.rank=4", "npo", {"lora.rank": 4}),
        ("NPO lora.rank=8", "npo", {"lora.rank": 8}),
    ]
    single = read_cost_recipe(written(tmp_path, GOOD.replace("[4, 8]", "8")))
    assert single.rows[2][0] == "NPO"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_recipes_are_valid(path):
    assert len(read_cost_recipe(path).rows) > 3


def test_there_are_shipped_recipes():
    assert {"toy", "100m", "llava-1.5-7b", "qwen2-vl-2b"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("config", "confg", ["no key 'confg'", "did you mean 'config'"]),
        ("[model]", "repeats = 0\n[model]", ["repeats cannot be used", "greater than or equal to 1"]),
        ('name = "npo"', 'name = "nppo"', ["no method 'nppo'", "did you mean 'npo'"]),
        ("rank", "rang", ["no setting 'rang'", "did you mean 'rank'"]),
        ("[4, 8]", "[4, 4]", ["same label", "NPO lora.rank=4"]),
        ("title", "title =", ["is not a TOML file"]),
        ("[model]", "[data]\nforget = 0\n[model]", ["data.forget"]),
    ],
)
def test_mistakes_are_answered(tmp_path, before, after, words):
    with pytest.raises(kvw.UserError) as caught:
        read_cost_recipe(written(tmp_path, GOOD.replace(before, after, 1)))
    for word in words:
        assert word in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(kvw.UserError, match="no recipe"):
        read_cost_recipe(tmp_path / "no.toml")
