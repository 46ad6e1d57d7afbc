"""What a run finds out at first: where it goes, and whether the folder is of the same recipe, or of a smaller one."""

from __future__ import annotations

import pytest
from tests.bench.records import MANIFEST
from tests.bench.test_recipe import GOOD, written

import kvw
from kvw.bench.first_checks import check_same_recipe, recipe_digest, run_places
from kvw.bench.folders import run_folders
from kvw.bench.recipe import read_recipe
from kvw.bench.record import RunFiles

LIST = GOOD.replace('name = "toy"', 'name = "toy"\nseed = [0, 3]')


def recipe_of(folder, text=GOOD):
    return read_recipe(written(folder, text))


def begun(folder, recipe):
    """A folder with the run of a recipe, as far as the manifest."""
    told = {"recipe": recipe.model_dump(mode="json"), "recipe_digest": recipe_digest(recipe)}
    RunFiles(folder).write_manifest(MANIFEST.model_copy(update=told))
    return folder


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[0.1, 0.2]", "[0.3, 0.2, 0.1]"),
        ('layers = "0:5"', 'layers = ["0:4", "0:5"]'),
        ("[[method]]", '[[method]]\nname = "subspace"\n[[method]]'),
        ('"small"', '"larger"'),
        ("[0.1, 0.2]", "[0.1, 0.2]"),
    ],
)
def test_a_recipe_may_grow_in_its_folder(tmp_path, before, after):
    run = begun(tmp_path / "run", recipe_of(tmp_path))
    check_same_recipe(run, recipe_of(tmp_path, GOOD.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("[0.1, 0.2]", "[0.1, 0.3]", "without kvw gamma=0.2"),
        ("[0.1, 0.2]", "0.2", "without kvw gamma=0.1"),
        ('name = "kvw"', 'name = "kvw"\nlabel = "other"', "without kvw gamma=0.1"),
        ('name = "toy"', 'name = "toy"\nseed = 1', "another benchmark"),
        ("[models]", "[evaluation]\nat_most = 3\n[models]", "another evaluation"),
        ("[models]", "[choice]\nkeep = 0.5\n[models]", "another choice"),
        ('"toy:vanilla"', '"toy:gold"', "another models"),
    ],
)
def test_what_was_asked_before_has_to_stay(tmp_path, before, after, found):
    run = begun(tmp_path / "run", recipe_of(tmp_path))
    with pytest.raises(kvw.UserError, match="the run of another recipe") as caught:
        check_same_recipe(run, recipe_of(tmp_path, GOOD.replace(before, after)))
    assert found in caught.value.found


def test_a_run_of_another_version_is_told(tmp_path):
    run = begun(tmp_path / "run", recipe_of(tmp_path))
    RunFiles(run).write_manifest(RunFiles(run).manifest().model_copy(update={"recipe": {}, "recipe_digest": ""}))
    with pytest.raises(kvw.UserError, match="another version"):
        check_same_recipe(run, recipe_of(tmp_path))


def test_several_seeds_are_several_runs(tmp_path):
    recipe = recipe_of(tmp_path, LIST)
    assert {name: one.benchmark.seed for name, one in recipe.runs.items()} == {"seed-0": 0, "seed-3": 3}
    settings = [part.settings for part in recipe.runs["seed-3"].method]
    assert [values["seed"] for values in settings[0]] == [3, 3], "a method that draws at random takes the seed"
    given = recipe_of(tmp_path, LIST.replace("gamma", "seed = 7\ngamma"))
    assert [values["seed"] for values in given.runs["seed-3"].method[0].settings] == [7, 7]
    without = recipe_of(
        tmp_path, LIST.replace('name = "kvw"\ngamma = [0.1, 0.2]\nschedule = "one-shot"', 'name = "leace"')
    )
    assert "seed" not in without.runs["seed-3"].method[0].settings[0]
    assert "seed" not in recipe_of(tmp_path).runs[""].method[0].settings[0]
    assert list(recipe_of(tmp_path, LIST.replace("[0, 3]", "[2]")).runs) == ["seed-2"], "so that the list can grow"
    assert list(recipe.with_seed(4).runs) == [""]
    for wrong in ("[]", "[1, 1]"):
        with pytest.raises(kvw.UserError, match=r"benchmark\.seed"):
            recipe_of(tmp_path, LIST.replace("[0, 3]", wrong))


def test_settings_and_seeds_lie_inside_each_other(tmp_path):
    text = LIST.replace('"toy"', '"clear"\nsetting = ["forget05", "forget10"]')
    places = run_places(recipe_of(tmp_path, text), tmp_path / "out")
    assert list(places) == [f"{setting}/seed-{seed}" for setting in ("forget05", "forget10") for seed in (0, 3)]
    for folder in places.values():
        RunFiles(folder).write_manifest(MANIFEST)
    assert run_folders(tmp_path / "out") == list(places.values())


def test_several_runs_do_not_go_into_the_folder_of_one(tmp_path):
    run = begun(tmp_path / "run", recipe_of(tmp_path))
    assert run_places(recipe_of(tmp_path), run) == {"": run}
    with pytest.raises(kvw.UserError, match="holds a single run") as caught:
        run_places(recipe_of(tmp_path, LIST), run)
    assert caught.value.found == "2 settings or seeds"
