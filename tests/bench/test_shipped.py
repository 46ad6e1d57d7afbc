"""Recipes that ship, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.program import assert_refused, run

import kvw
from kvw.bench.shipped import find_recipe, recipes_folder, shipped_recipes


def test_a_recipe_that_ships_is_found_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path("toy")) == recipes_folder() / "toy.toml"
    assert find_recipe(Path("cost/toy")) == recipes_folder() / "cost" / "toy.toml"
    assert find_recipe(Path("gone.toml")) == Path("gone.toml"), "a path, whether it is there or not"
    Path("toy").write_text("mine")
    assert find_recipe(Path("toy")) == Path("toy"), "a file of one's own comes first"
    with pytest.raises(kvw.UserError, match="no recipe 'clear-qwen2-vl-2'") as caught:
        find_recipe(Path("clear-qwen2-vl-2"))
    assert caught.value.do == "did you mean 'clear-qwen2-vl-2b'?"
    assert run("bench", "validate", "toy-clear") == 0
    assert "toy-clear.toml: CLEAR at toy scale" in capsys.readouterr().out
    assert_refused(capsys, run("bench", "run", "toy-claer", "--out", "new"), "did you mean 'toy-clear'")


def test_recipes_are_listed(capsys):
    assert run("bench", "recipes", "--json") == 0
    listed = {row["name"]: row["title"] for row in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(shipped_recipes())
    assert listed["toy"] == "KVW and subspace weakening on the toy world"
    assert run("bench", "recipes") == 0
    assert "clear-qwen2-vl-2b" in capsys.readouterr().out
