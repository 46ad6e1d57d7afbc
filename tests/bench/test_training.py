"""Methods that train in recipes: their settings, and that the model is what it was afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.gradient import ALTERNATIVES, FORGET, GRADIENT, RETAIN, changed, fresh, weights_of
from tests.sampling import one_in

import kvw
from kvw.bench import run as bench_run
from kvw.bench.changes import EditChange, TrainedChange
from kvw.bench.recipe import BenchmarkPart, read_recipe
from kvw.bench.record import RunFiles
from kvw.bench.results import read_results
from kvw.bench.training import first_wrong_answers, train_and_put_back
from kvw.cli.options import find_model
from kvw.edits.gates import GateEdit
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.npo import NpoSettings
from kvw.methods.registry import get_method
from kvw.models.value_matrix import MatrixKey
from kvw.progress import SILENT
from kvw.runs.costs import Stopwatch
from kvw.toy.benchmark import items, people
from kvw.training.settings import LoraSettings, TrainingSettings

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("small_toy")]

FAST = {"learning_rate": 1e-3, "batch_size": 2, "schedule": "constant"}
ADAPTED = {"lora.rank": 3, "lora.dropout": 0.0}


def trained(model, processor, settings, folder, *, progress=lambda done, total: None):
    """What the bench does with a method that trains."""
    loaded = SimpleNamespace(model=model, processor=processor)
    state = folder.with_name(f"{folder.name}.training")
    method = get_method(settings.method)
    train_and_put_back(method, loaded, FORGET, RETAIN, settings, ALTERNATIVES, folder, state, progress)
    return state


def test_settings_may_stand_beside_the_methods_own_or_in_a_table():
    beside = get_method("npo").combinations({"beta": [0.1, 0.4], "learning_rate": 1e-4, "lora": {"rank": [4, 8]}})
    table = {"learning_rate": 1e-4, "lora": {"rank": [4, 8]}}
    assert get_method("npo").combinations({"beta": [0.1, 0.4], "training": table}) == beside
    assert beside == [
        {"beta": beta, "learning_rate": 1e-4, "lora.rank": rank} for beta in (0.1, 0.4) for rank in (4, 8)
    ]
    built = get_method("npo").read(beside[3])
    assert built.method_settings == NpoSettings(beta=0.4)
    assert built.training == TrainingSettings(learning_rate=1e-4, lora=LoraSettings(rank=8))
    assert get_method("ga").combinations({}) == [{}]
    assert get_method("ga").read({}).training.lora is None
    assert get_method("ga").combinations({"lora": {}}) == [{"lora": {}}]
    assert get_method("ga").read({"lora": {}}).training.lora == LoraSettings()
    assert get_method("manu").read({"weights": [2, 0, 2, 2]}).method_settings.weights == (2, 0, 2, 2)
    assert get_method("manu").read({}).training is None


@pytest.mark.parametrize(
    ("method", "values", "words"),
    [
        ("npo", {"betta": 0.1}, ["no setting 'betta'", "did you mean 'beta'"]),
        ("npo", {"learning_rat": 0.1}, ["did you mean 'learning_rate'"]),
        ("npo", {"training": {"epoch": 1}}, ["training of method npo", "did you mean 'epochs'"]),
        ("npo", {"lora": {"rang": 1}}, ["lora of method npo", "did you mean 'rank'"]),
        ("npo", {"lora": 8}, ["lora must be a table", "8"]),
        ("npo", {"training": {"epochs": 1}, "epochs": 2}, ["epochs of method npo is there twice"]),
        ("npo", {"epochs": []}, ["lists no value"]),
        ("npo", {"epochs": True}, ["Setting epochs of method npo", "True"]),
        ("subspace", {"rank": True}, ["Setting rank of method subspace", "True"]),
        ("npo", {"epochs": 0}, ["epochs must be a whole number"]),
        ("npo", {"lora": {"rank": [4, 0]}}, ["rank must be a whole number"]),
        ("manu", {"learning_rate": 1e-4}, ["no setting 'learning_rate'"]),
        ("manu", {"training": {}}, ["no setting 'training'"]),
        ("manu", {"weights": [[1, 2]]}, ["Setting weights of method manu cannot be used"]),
    ],
)
def test_mistakes_are_answered(method, values, words):
    with pytest.raises(kvw.UserError) as caught:
        get_method(method).combinations(values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("lora", [{}, ADAPTED])
def test_what_is_stored_is_what_training_makes_and_it_comes_off_bit_for_bit(tmp_path, lora):
    model, processor = fresh()
    before = weights_of(model)
    settings = get_method("ga").read({**FAST, **lora})
    state = trained(model, processor, settings, tmp_path / "ga")
    assert changed(model, before) == set()
    assert not state.exists()
    other, _ = fresh()
    unlearn(other, processor, FORGET, RETAIN, "ga", settings.method_settings, settings.training)
    with TrainedChange(tmp_path / "ga").on(model):
        assert changed(model, weights_of(other)) == set()
        assert changed(model, before)
    assert changed(model, before) == set()
    assert all(not parameter.requires_grad or parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", one_in(3, GRADIENT))
def test_every_method_leaves_the_model_as_it_was_and_a_change_behind(tmp_path, method):
    model, processor = fresh()
    before = weights_of(model)
    seen = {"fact-erasure": {"floor": 1e-30}, "lens-margin": {"margin": 0.5}, "simnpo": {"beta": 0.1}}
    seen["auvic"] = {"candidates": ["Ann Lee", "Bo Day"]}
    values = {} if not GRADIENT[method].trains else FAST | seen.get(method, {})
    trained(model, processor, get_method(method).read(values), tmp_path / method)
    assert changed(model, before) == set()
    with TrainedChange(tmp_path / method).on(model):
        assert changed(model, before)
    assert changed(model, before) == set()


def test_a_training_that_fails_leaves_the_model_as_it_was(tmp_path):
    model, processor = fresh()
    before = weights_of(model)
    with pytest.raises(kvw.UserError, match="not finite"):
        trained(model, processor, get_method("ga").read({**FAST, "learning_rate": 1e30}), tmp_path / "ga")
    assert changed(model, before) == set()
    assert not (tmp_path / "ga").exists()


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    model, processor = fresh()
    settings = get_method("grad-diff").read({**FAST, "save_every": 1})

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(model, processor, settings, tmp_path / "parts", progress=stop)
    assert (tmp_path / "parts.training").is_file()
    steps = []
    trained(model, processor, settings, tmp_path / "parts", progress=lambda done, total: steps.append(done))
    assert steps == [2]
    trained(model, processor, settings, tmp_path / "whole")
    assert TrainedChange(tmp_path / "parts").digest == TrainedChange(tmp_path / "whole").digest


def test_a_change_of_another_model_is_refused_and_nothing_happens(tmp_path):
    model, processor = fresh()
    trained(model, processor, get_method("ga").read(FAST), tmp_path / "ga")
    other, _ = fresh("qwen2_vl")
    before = weights_of(other)
    with pytest.raises(kvw.UserError, match="do not fit this Qwen2VL"):
        TrainedChange(tmp_path / "ga").on(other).__enter__()
    assert changed(other, before) == set()
    record = json.loads((tmp_path / "ga" / "training.json").read_text())
    (tmp_path / "ga" / "training.json").write_text(json.dumps({**record, "changed": ["no.such"]}))
    with pytest.raises(kvw.UserError, match=r"(?s)does not fit this Qwen2VL.*no weight no\.such"):
        TrainedChange(tmp_path / "ga").on(other).__enter__()
    assert changed(other, before) == set()


def test_digests_tell_changes_apart(tmp_path):
    one, other = (EditChange(GateEdit({MatrixKey(0): torch.full((4,), value)})) for value in (-1.0, -2.0))
    assert one.digest != other.digest
    model, processor = fresh()
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        trained(model, processor, get_method("ga").read({**FAST, **ADAPTED, "seed": seed}), tmp_path / name)
    digests = [TrainedChange(tmp_path / name).digest for name in ("one", "same", "other")]
    assert digests[0] == digests[1] != digests[2]


def test_dpo_prefers_the_first_wrong_answer_of_the_benchmark():
    data = bench_run.get_benchmark("toy").load()
    items = data.training["forget"]
    found = first_wrong_answers(items)
    assert found == tuple(item.perturbed[0] for item in items)
    assert all(other != item.answer for other, item in zip(found, items, strict=True))
    assert first_wrong_answers([*items, replace(items[0], perturbed=())]) == ()


def test_dpo_gets_as_many_wrong_answers_as_examples(tmp_path, monkeypatch):
    """With what is asked by name left out, too."""
    given = []
    monkeypatch.setattr(bench_run, "train_and_put_back", lambda *all_: given.append(all_))
    monkeypatch.setattr(bench_run, "TrainedChange", lambda folder: folder)
    monkeypatch.setattr(people, "PEOPLE", 20)
    monkeypatch.setattr(items, "_world", items._world.__wrapped__)  # keeps the world of 200 people
    (tmp_path / "recipe.toml").write_text(RECIPE.split("[[method]]")[0] + '[[method]]\nname = "dpo"\n')
    recipe = read_recipe(tmp_path / "recipe.toml")
    recipe = recipe.model_copy(
        update={"benchmark": BenchmarkPart(name="toy-200", setting="forget05", unlearn_on="images")}
    )
    data = bench_run.load_benchmark(recipe.benchmark)
    work = bench_run._Work(recipe, data, [], RunFiles(tmp_path / "run"), Stopwatch(SILENT), None)
    (tmp_path / "run" / "edits").mkdir(parents=True)
    work.make_change(None, "dpo", {}, "dpo")
    ((_, _, forget, _, _, others, _, _, _),) = given
    assert 0 < len(others) == len(forget) < len(data.training["forget"])


RECIPE = """
title = "trained"
[benchmark]
name = "toy"
[models]
vanilla = "toy:vanilla"
[evaluation]
at_most = 6
tasks = ["forget/seen", "retain/seen"]
likelihoods = false
[[method]]
name = "ga"
learning_rate = 1e-2
batch_size = 6
lora = { rank = 4 }
[[method]]
name = "manu"
parts = [["language"]]
formula = "pooled"
share = 0.9
"""


@pytest.mark.thorough
def test_a_run_with_methods_that_train(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = read_recipe(tmp_path / "recipe.toml")
    bench_run.run(recipe, find_model, tmp_path / "out", SILENT)
    rows = {(row.split, row.task): row.cells for row in read_results(tmp_path / "out").rows}
    assert rows["forget", "seen"]["vanilla"].mean == 1.0
    assert rows["forget", "seen"]["ga"].mean < 1.0
    assert rows["forget", "seen"]["manu"].mean < 1.0
    (adapter,) = (tmp_path / "out" / "edits").glob("ga-*")
    assert (adapter / "adapter_model.safetensors").is_file()
    monkeypatch.setattr(bench_run, "train_and_put_back", None)  # what is there is not made again
    next((tmp_path / "out" / "records").glob("ga*")).unlink()
    bench_run.run(recipe, find_model, tmp_path / "out", SILENT)
    assert {(row.split, row.task): row.cells for row in read_results(tmp_path / "out").rows} == rows
