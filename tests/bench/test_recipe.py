"""Recipes: read, checked, and typing errors answered with the nearest name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kvw
from kvw.bench.recipe import read_recipe
from kvw.bench.run import run
from kvw.methods.registry import get_method
from kvw.progress import SILENT
from kvw.training.settings import LoraSettings, TrainingSettings

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
FULL_SIZE_MODELS = ("qwen2-vl-2b", "llava-1.5-7b", "qwen2.5-vl-3b")
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
    built = get_method("kvw").read(method.settings[1])
    assert (built.gamma, built.layers, built.schedule) == (0.2, (0, 5), "one-shot")
    assert get_method("kvw").combinations({}) == [{}]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path):
    assert read_recipe(path).title


@pytest.mark.thorough
def test_models_that_are_not_there_are_made_by_what_the_recipe_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes = {path.name: read_recipe(path) for path in SHIPPED}
    made = [name for name, recipe in recipes.items() if recipe.models and "bench-models" in recipe.models.vanilla]
    assert made == [path.name for path in SHIPPED if path.name.startswith("toy-200")]
    for name in made:
        with pytest.raises(kvw.UserError, match="no model 'bench-models/seed-0/vanilla'") as found:
            run(recipes[name], kvw.find_checkpoint, tmp_path / "out", SILENT)
        assert "do: make the models with: make bench-models SEEDS=0" in str(found.value)
        with pytest.raises(kvw.UserError, match="make bench-models SEEDS=3"):
            run(recipes[name].with_seed(3), kvw.find_checkpoint, tmp_path / "out", SILENT)
    assert not (tmp_path / "out").exists()
    missing = GOOD.replace('"toy:vanilla"', '"nowhere"')
    with pytest.raises(kvw.UserError, match="do: give a local folder or a hub id"):
        run(read_recipe(written(tmp_path, missing)), kvw.find_checkpoint, tmp_path / "out", SILENT)
    told = missing.replace('"nowhere"', '"nowhere"\nmade_by = "make it"')
    with pytest.raises(kvw.UserError, match="do: make the models with: make it"):
        run(read_recipe(written(tmp_path, told)), kvw.find_checkpoint, tmp_path / "out", SILENT)
    one, other = (read_recipe(written(tmp_path, text)).model_dump() for text in (missing, told))
    assert one == other, "how models are made is no part of what a run depends on"


def test_there_are_shipped_recipes():
    assert {path.name for path in SHIPPED} >= {
        *("toy.toml", "toy-clear.toml", "toy-mllmu.toml"),
        *(f"{name}-{model}.toml" for name in ("clear", "mllmu") for model in FULL_SIZE_MODELS),
    }


FULL_SIZE = [path for path in SHIPPED if path.name.startswith(("clear", "mllmu"))]
PARTS = sorted((Path(__file__).parents[2] / "recipes" / "parts").glob("*.toml"))


@pytest.mark.parametrize("path", [*FULL_SIZE, *PARTS], ids=lambda path: path.name)
def test_every_value_of_a_full_size_recipe_says_where_it_comes_from(path):
    table = ""
    for line in path.read_text().splitlines():
        table = line if line.startswith("[") else table
        key, equals, rest = line.partition(" = ")
        if equals and key not in ("title", "name", "label", "include", "tasks") and not line.startswith("#"):
            assert re.search(r"# .*(paper|benchmark|our choice)", rest), (table, line)


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.name)
def test_full_size_recipes_compare_all_methods_on_three_shares(path):
    recipe = read_recipe(path)
    assert len(recipe.runs) == 3
    assert recipe.plant.training.lora.rank == 16
    methods = [part.called for part in recipe.method]
    assert methods[:2] == ["kvw", "kvw-no-retain"]
    assert set(methods) >= {
        "subspace",
        "steering",
        "manu",
        "ga",
        "grad-diff",
        "kl",
        "npo",
        "npo-no-retain",
        "mmunlearner",
    }
    trained = [settings for part in recipe.method if part.called == "npo" for settings in part.settings]
    assert [settings["learning_rate"] for settings in trained] == [1e-5, 2e-5, 3e-5]
    (without,) = [part for part in recipe.method if part.called == "kvw-no-retain"]
    assert get_method("kvw").read(without.settings[0]).retain_contrast is False


def test_models_of_full_size_recipes_differ_in_nothing_but_the_model():
    for name in ("clear", "mllmu"):
        recipes = [read_recipe(path) for path in FULL_SIZE if path.name.startswith(name)]
        assert len({recipe.plant.base for recipe in recipes}) == 3
        for part in ("benchmark", "evaluation", "choice"):
            assert len({getattr(recipe, part).model_dump_json() for recipe in recipes}) == 1


def test_a_recipe_includes_others(tmp_path):
    (tmp_path / "parts").mkdir()
    part = '[benchmark]\nname = "toy"\nseed = 4\n[choice]\nkeep = 0.5\n[[method]]\nname = "leace"\n'
    (tmp_path / "parts" / "one.toml").write_text(part)
    (tmp_path / "two.toml").write_text('[benchmark]\nseed = 5\n[[method]]\nname = "rms-kvw"\n')
    include = 'include = ["parts/one.toml", "two.toml"]'
    recipe = read_recipe(written(tmp_path, f"{include}\n{GOOD}\n[choice]\nfolds = 'first'"))
    assert (recipe.benchmark.name, recipe.benchmark.seed) == ("toy", 5), "the later file wins"
    assert (recipe.choice.keep, recipe.choice.folds) == (0.5, "first")
    assert [part.called for part in recipe.method] == ["kvw", "leace", "rms-kvw"]
    assert read_recipe(written(tmp_path, f"{include}\n{GOOD}".replace('"toy"', '"toy"\nseed = 6'))).benchmark.seed == 6
    for wrong, words in (
        (include.replace("two", "tow"), "includes a file that is not there"),
        ('include = "two.toml"', "no list of files"),
        ('include = ["recipe.toml"]', "is included and includes others"),
    ):
        with pytest.raises(kvw.UserError, match=words):
            read_recipe(written(tmp_path, f"{wrong}\n{GOOD}"))


PLANT = GOOD.replace(
    '[models]\nvanilla = "toy:vanilla"', '[plant]\nbase = "toy:vanilla"\nepochs = 3\n[plant.lora]\nrank = 4'
)


def test_how_to_plant(tmp_path):
    recipe = read_recipe(written(tmp_path, PLANT))
    assert recipe.models_by_role == {"base": "toy:vanilla"}
    assert recipe.plant.training == TrainingSettings(epochs=3, lora=LoraSettings(rank=4))
    full = read_recipe(written(tmp_path, PLANT.replace("[plant.lora]\nrank = 4", 'parts = ["language", "projector"]')))
    assert full.plant.training == TrainingSettings(epochs=3, parts=("language", "projector"))
    assert read_recipe(written(tmp_path, GOOD)).models_by_role == {"vanilla": "toy:vanilla"}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("epochs", "epoch", ["no setting 'epoch' in [plant]", "did you mean 'epochs'"]),
        ("rank = 4", "ranks = 4", ["no setting 'ranks' in lora of [plant]", "did you mean 'rank'"]),
        ("epochs = 3", "epochs = 0", ["epochs must be a whole number of at least 1"]),
        ("rank = 4", "rank = 0.5", ["Setting lora.rank of [plant]", "0.5", "integer"]),
        ("epochs = 3\n[plant.lora]\nrank = 4", "lora = 4", ["Setting lora of [plant] cannot be used", "4"]),
        ('base = "toy:vanilla"', "", ["plant.base cannot be used"]),
        ("[plant]", '[models]\nvanilla = "toy:gold"\n[plant]', ["either [models] or [plant]", "both"]),
        ('[plant]\nbase = "toy:vanilla"\nepochs = 3\n[plant.lora]\nrank = 4', "", ["either", "neither"]),
        ('name = "toy"', 'name = "toy"\nsource = "toy"', ["no toy copy 'toy'", "clear, mllmu"]),
        ('name = "toy"', 'name = "clear"\nsetting = ["forget05", "forget5"]', ["no setting 'forget5'"]),
        ('name = "toy"', 'name = "clear"\nsetting = ["forget05", "forget05"]', ["each setting once"]),
        ('name = "toy"', 'name = "clear"\nsetting = []', ["each setting once", "none"]),
        ('name = "toy"', 'name = "clear"\nunlearn_on = "texts"', ["benchmark.unlearn_on cannot be used"]),
    ],
)
def test_mistakes_about_planting_are_answered(tmp_path, before, after, words):
    text = PLANT.replace(before, after, 1)
    assert text != PLANT
    with pytest.raises(kvw.UserError) as caught:
        read_recipe(written(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_several_settings_are_several_runs(tmp_path):
    text = GOOD.replace('name = "toy"', 'name = "clear"\nsetting = ["forget05", "forget10"]')
    recipe = read_recipe(written(tmp_path, text))
    assert {name: one.benchmark.setting for name, one in recipe.runs.items()} == {
        "forget05": ("forget05",),
        "forget10": ("forget10",),
    }
    assert list(read_recipe(written(tmp_path, GOOD)).runs) == [""]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('name = "toy"', 'name = "toyy"', ["no benchmark 'toyy'", "did you mean 'toy'"]),
        ("[models]", "[modles]", ["no key 'modles'", "did you mean 'models'"]),
        ("vanilla =", "vanila =", ["no key 'vanila'", "[models]", "did you mean 'vanilla'"]),
        ('name = "kvw"', 'name = "kwv"', ["no method 'kwv'", "did you mean 'kvw'"]),
        ('name = "kvw"', 'name = "kvw"\nlabel = "gold"', ["two things are called 'gold'"]),
        ('name = "kvw"', 'name = "kvw"\nlabel = "a/b"', ["method.0.label cannot be used"]),
        ("gamma =", "gama =", ["no setting 'gama'", "did you mean 'gamma'"]),
        ("[0.1, 0.2]", "[0.1, -1.0]", ["gamma must be a number above 0"]),
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
