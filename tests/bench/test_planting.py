"""Runs that make their own models: planted, found again, shared between settings, killed and continued."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from tests.bench.killed import watched
from tests.data.benchmarks import copies
from tests.several_processes import run_alone

import kvw.bench.benchmarks
from kvw.bench import planting as bench_planting
from kvw.bench.recipe import PlantPart, read_recipe
from kvw.bench.record import PlantingPart, read_file
from kvw.bench.results import read_results
from kvw.bench.run import load_benchmark
from kvw.bench.together import alone
from kvw.cli import main
from kvw.evaluation.loaded import Loaded
from kvw.measuring.fingerprint import weights_digest
from kvw.models.loading import find_checkpoint
from kvw.progress import SILENT
from kvw.report.bench_tables import bench_table
from kvw.runs.costs import Stopwatch
from kvw.training.result import apply_result

pytestmark = pytest.mark.thorough

RECIPE = """
title = "small"
[benchmark]
name = "clear"
source = "{source}"
setting = "forget05"
[plant]
base = "{base}"
learning_rate = 1e-2
epochs = 2
batch_size = 4
save_every = 1
[evaluation]
tasks = ["forget/name", "forget/tofu", "retain/name"]
max_new_tokens = 3
[[method]]
name = "kvw"
schedule = "one-shot"
gamma = [0.5, 1.0]
"""


@pytest.fixture(scope="module")
def clear_copy(tmp_path_factory):
    return copies.clear(tmp_path_factory.mktemp("copies") / "clear")


@pytest.fixture
def data(clear_copy):
    return kvw.bench.benchmarks.get_benchmark("clear").load(clear_copy, "forget05")


def planted(part, data, base, folder):
    return bench_planting.plant(part, data, find_checkpoint(str(base)), folder, Stopwatch(SILENT))


def weights(checkpoint):
    return weights_digest(checkpoint.folder)


def test_vanilla_learns_everything_and_gold_all_but_the_forgotten(data, saved, tmp_path):
    part = PlantPart(base="b", learning_rate=1e-2, epochs=2, batch_size=4)
    made = planted(part, data, saved["llava"], tmp_path)
    assert made["vanilla"].planting.examples == len(data.planted)
    assert made["gold"].planting.examples == len(data.gold) == len(data.planted) - len(data.training["forget"])
    for one in made.values():
        assert len(one.planting.losses) == 2 * -(-one.planting.examples // 4)
        assert one.planting.losses[-1] < one.planting.losses[0]
        assert one.planting.settings["learning_rate"] == 1e-2
        assert one.planting.base == find_checkpoint(str(saved["llava"])).name
        Loaded.load(one.checkpoint)
    assert len({weights(one.checkpoint) for one in made.values()} | {weights_digest(saved["llava"])}) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        name for one in made.values() for name in (one.checkpoint.name, f"{one.checkpoint.name}.json")
    )


def test_what_is_planted_is_found_again_unless_something_has_changed(data, saved, tmp_path, monkeypatch):
    part = PlantPart(base="b", epochs=1, batch_size=8)
    first = planted(part, data, saved["llava"], tmp_path)
    monkeypatch.setattr(bench_planting, "finetune", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(bench_planting, "gold", lambda *_, **__: pytest.fail("trained again"))
    assert planted(part, data, saved["llava"], tmp_path) == first
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        planted(PlantPart(base="b", epochs=1, batch_size=8, seed=1), data, saved["llava"], tmp_path)


def test_adapters_are_kept_beside_the_merged_model(data, saved, tmp_path):
    part = PlantPart(base="b", learning_rate=1e-2, batch_size=8, lora={"rank": 2, "dropout": 0.0})
    made = planted(part, data, saved["llava"], tmp_path)["vanilla"]
    assert made.planting.settings["lora"] == {"rank": 2, "alpha": 16, "dropout": 0.0}
    model = Loaded.load(find_checkpoint(str(saved["llava"]))).model
    apply_result(model, tmp_path / f"{made.checkpoint.name}-adapter")
    merged = Loaded.load(made.checkpoint).model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, merged[name], atol=1e-6), name


def two_settings(tables):
    """A second, larger forget set beside that of a small copy of MLLMU-Bench."""
    both = [*tables["forget_5"], *tables["retain_95"]]
    tables |= {"forget_10": both[:3], "retain_90": both[3:]}


@pytest.mark.slow
@pytest.mark.thorough
def test_settings_share_the_vanilla_model(saved, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    text = RECIPE.format(source=copies.mllmu(tmp_path / "mllmu", two_settings), base=saved["llava"])
    text = text.replace('"clear"', '"mllmu"').replace('"forget05"', '["forget_5", "forget_10"]')
    recipe.write_text(
        text.replace('["forget/name", "forget/tofu", "retain/name"]', '["forget/cloze_image", "retain/cloze_image"]')
    )
    with pytest.raises(SystemExit) as stop:
        main(["bench", "run", str(recipe), "--out", str(tmp_path / "out")])
    assert not stop.value.code
    models = sorted(path.name.partition("-")[0] for path in (tmp_path / "out" / "models").glob("*.json"))
    assert models == ["gold", "gold", "vanilla"]
    printed = capsys.readouterr().out
    for setting in ("forget_5", "forget_10"):
        found = read_results(tmp_path / "out" / setting)
        assert found.manifest.setting == setting
        assert bench_table(alone(found)).text("markdown") in printed
        assert found.planted["vanilla"].examples == 12
        assert "12 examples, all weights of language, 2 epochs" in bench_table(alone(found)).text("markdown")
    with pytest.raises(SystemExit):
        main(["bench", "table", str(tmp_path / "out")])
    assert capsys.readouterr().out.strip() == printed.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments",
    [
        (("planting", 9), ("asking", 6)),
        pytest.param(
            (("planting", 1), ("planting", 9), ("asking", 1), ("asking", 6), ("asking", 12)), marks=pytest.mark.slow
        ),
    ],
    ids=["two moments", "five moments"],
)
def test_killed_at_any_moment_and_continued_gives_the_same_tables(clear_copy, saved, tmp_path, moments):
    """Planting and asking are each killed by SIGKILL; nothing is trained or asked twice."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(source=clear_copy, base=saved["llava"]))

    def run(name, *moment):
        return run_alone(watched, recipe, tmp_path / name, tmp_path / f"{name}.txt", *moment, folder=tmp_path / "logs")

    whole = run("whole")
    assert whole.code == 0, whole.errors
    for moment in moments:
        assert run("parts", *moment).code == -9
    last = run("parts")
    assert last.code == 0, last.errors
    for name in ("table.md", "table.tex", "table.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    counts = [Counter((tmp_path / f"{name}.txt").read_text().splitlines()) for name in ("whole", "parts")]
    assert counts[0] == counts[1]
    assert counts[0]["step"] > 9
    assert len(counts[0]) > 6
    models = [sorted(path.name for path in (tmp_path / name / "models").iterdir()) for name in ("whole", "parts")]
    assert models[0] == models[1]
    for name in models[0]:
        if name.endswith(".json"):
            first, second = (read_file(tmp_path / run / "models" / name, PlantingPart) for run in ("whole", "parts"))
            assert first.losses == second.losses
    record = json.loads(next((tmp_path / "parts" / "records").glob("gold*")).read_text())
    assert record["planting"]["examples"] == len(load_benchmark(read_recipe(recipe).benchmark).gold)
