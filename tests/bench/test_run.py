"""Whole runs: from a recipe to tables, interrupted and continued, on copies of real benchmarks."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.data.benchmarks import copies

import kvw
from kvw.bench import run as bench_run
from kvw.bench.asking import questions
from kvw.bench.recipe import BenchmarkPart, EvaluationPart, read_recipe
from kvw.bench.record import RunFiles
from kvw.bench.results import read_results
from kvw.cli import main
from kvw.data.benchmarks import Protocol
from kvw.edits import load_edit
from kvw.evaluation import generation
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.methods.registry import get_method

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("small_toy")]

TOY = """
title = "small"
[benchmark]
name = "toy"
[models]
vanilla = "toy:vanilla"
gold = "toy:gold"
[evaluation]
at_most = 4
tasks = ["forget/seen", "forget/text", "retain/seen", "general/shapes"]
[[method]]
name = "kvw"
schedule = "one-shot"
layers = "0:5"
gamma = [0.1, 0.8]
[[method]]
name = "subspace"
gate = "wiener"
layers = "0:5"
mu = 1.0
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))


def bench(recipe, out):
    try:
        main(["bench", "run", str(recipe), "--out", str(out)])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture
def asked(monkeypatch):
    """The prompts that were generated for."""
    return counting(monkeypatch)


def counting(monkeypatch):
    counted = []
    original = generation._generate

    def generate(model, processor, batch):
        counted.extend(batch)
        return original(model, processor, batch)

    monkeypatch.setattr(generation, "_generate", generate)
    return counted


@dataclass(frozen=True)
class Whole:
    """A run of the toy recipe from its beginning to its end; read only."""

    recipe: Path
    out: Path
    asked: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_toy):
    folder = tmp_path_factory.mktemp("whole")
    recipe, out = folder / "recipe.toml", folder / "out"
    recipe.write_text(TOY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVW_CACHE", str(folder / "cache"))
        counted = counting(patch)
        assert bench(recipe, out) == 0
    return Whole(recipe, out, len(counted))


@pytest.mark.slow
def test_killed_half_way_and_continued_gives_the_same_tables(whole, tmp_path, monkeypatch, asked, capsys):
    recipe = whole.recipe
    append, appended = Journal._append, []

    def stop_in_the_third_model(self, path, lines):
        append(self, path, lines)
        appended.append(path)
        if len(set(appended)) == 3 and appended.count(path) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "_append", stop_in_the_third_model)
    assert bench(recipe, tmp_path / "parts") == 130
    with pytest.raises(kvw.UserError, match="not finished"):
        read_results(tmp_path / "parts")
    with next((tmp_path / "parts" / "answers").glob("kvw*")).open("ab") as torn:
        torn.write(b'{"kind": "ans')
    assert bench(recipe, tmp_path / "parts") == 0
    assert read_results(tmp_path / "parts").rows == read_results(whole.out).rows
    assert len(asked) == whole.asked
    assert list((tmp_path / "parts" / "answers").iterdir()) == []
    for name in ("table.md", "table.tex", "table.csv"):
        assert (tmp_path / "parts" / name).read_text() == (whole.out / name).read_text()
    asked.clear()
    assert bench(recipe, tmp_path / "parts") == 0
    assert asked == []
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["bench", "table", str(tmp_path / "parts"), "--format", "csv"])
    assert capsys.readouterr().out == (tmp_path / "parts" / "table.csv").read_text()


@pytest.mark.slow
def test_settings_that_are_not_chosen_are_asked_the_tasks_of_the_choice_alone(whole, tmp_path, asked):
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text(TOY + '[choice]\ntasks = ["seen"]\nfolds = "first"\n')
    assert bench(recipe, out) == 0
    assert len(asked) < whole.asked
    (chosen,) = (one for one in read_results(out).choices if one.method == "kvw")
    seconds = RunFiles(out).record(chosen.identifier).seconds
    assert [title.split()[0] for title in seconds] == ["unlearning", "asking", "asking"]
    assert list(seconds)[2].endswith("the rest")
    for path in (out / "items").iterdir():
        if path.name.startswith("kvw") and path.stem != chosen.identifier:
            assert {json.loads(line)["task"] for line in path.read_text().splitlines()} == {"seen"}
        else:
            assert path.read_text() == (whole.out / "items" / path.name).read_text()
    asked.clear()
    assert bench(recipe, out) == 0
    assert asked == []


def test_the_numbers_are_those_of_the_models(whole):
    rows = {(row.split, row.task): row.cells for row in read_results(whole.out).rows}
    assert rows["forget", "seen"]["vanilla"].mean > 0.9
    assert rows["forget", "seen"]["gold"].mean < 0.2
    assert rows["retain", "seen"]["gold"].mean > 0.9
    assert rows["forget", "seen"]["subspace"].mean < rows["forget", "seen"]["vanilla"].mean
    record = json.loads(next((whole.out / "records").glob("kvw*")).read_text())
    assert sum(record["outcomes"]["forget/text"].values()) == 4


def test_a_method_stands_beside_a_variant_of_itself(tmp_path):
    recipe, method = tmp_path / "recipe.toml", '[[method]]\nname = "subspace"\nlayers = "2:3"\n'
    text = TOY.split("[[method]]")[0].replace("at_most = 4", "at_most = 1")
    recipe.write_text(f'{text}{method}{method}label = "subspace-both"\nmatrices = "both"\n')
    assert bench(recipe, tmp_path / "out") == 0
    assert {"subspace", "subspace-both"} < set(read_results(tmp_path / "out").rows[0].cells)
    edits = {path.name.rpartition("-")[0]: load_edit(path) for path in (tmp_path / "out" / "edits").glob("subspace*")}
    assert any(key.attention for key in edits["subspace-both"].widths)
    assert not any(key.attention for key in edits["subspace"].widths)


def test_another_recipe_does_not_go_into_the_same_directory(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TOY)
    monkeypatch.setattr(bench_run._Work, "score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert bench(recipe, tmp_path / "out") == 130
    recipe.write_text(TOY.replace("0.8", "0.4"))
    assert bench(recipe, tmp_path / "out") == 2
    assert "another recipe" in capsys.readouterr().err


def test_a_grid_grows_without_asking_again_what_is_known(whole, tmp_path, asked):
    recipe, out = tmp_path / "recipe.toml", shutil.copytree(whole.out, tmp_path / "out")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*/*.*") if path.is_file()}
    recipe.write_text(TOY.replace("[0.1, 0.8]", "[0.1, 0.4, 0.8]"))
    assert bench(recipe, out) == 0
    items = sum(task.items for task in read_results(out).manifest.tasks)
    assert len(asked) == items, "the new model, and no other"
    for path, (content, changed) in before.items():
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, changed), path
    found = read_results(out)
    assert [choice.tried for choice in found.choices if choice.method == "kvw"] == [3, 3]
    assert len(found.manifest.requests) == len(read_results(whole.out).manifest.requests) + 1
    asked.clear()
    assert bench(recipe, out) == 0
    assert asked == []
    assert bench(whole.recipe, out) == 2, "what is there would be lost from the table"


@pytest.mark.slow
def test_seeds_of_one_recipe_are_put_together(tmp_path, capsys):
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    text = TOY.split("[[method]]")[0].replace('name = "toy"', 'name = "toy"\nseed = [0, 2]')
    recipe.write_text(text.replace("at_most = 4", "at_most = 1") + '[[method]]\nname = "leace"\n')
    main_json = ["bench", "run", str(recipe), "--out", str(out), "--json"]
    with pytest.raises(SystemExit):
        main(main_json)
    (told,) = json.loads(capsys.readouterr().out)
    assert told["seeds"] == [0, 2]
    assert told["interval"] == "95 % Student over seeds"
    assert {path.name for path in out.iterdir()} == {".kvw", "seed-0", "seed-2"}
    halves = [RunFiles(out / f"seed-{seed}").manifest().folds for seed in (0, 2)]
    assert halves[0] != halves[1]
    assert bench(recipe, out) == 0
    assert "means of the seeds' means" in capsys.readouterr().out
    assert (out / "seed-2" / "report.html").is_file()


@pytest.mark.parametrize("verb", ["run", "attack", "calibrate"])
def test_models_run_where_the_device_says(whole, tmp_path, monkeypatch, verb, capsys):
    places = []

    def load(checkpoint, device=None, **_):
        places.append(device)
        raise kvw.UserError("stop")

    monkeypatch.setattr(Loaded, "load", load)
    out = shutil.copytree(whole.out, tmp_path / "out")
    if verb == "run":
        (next(out.glob("records/kvw*"))).unlink()
    more = [str(whole.recipe), "--out", str(out)] if verb == "run" else [str(out)]
    with pytest.raises(SystemExit):
        main(["bench", verb, *more, "--device", "cpu:0"])
    assert places == ["cpu:0"]
    assert "stop" in capsys.readouterr().err


def test_results_for_machines(whole, tmp_path, capsys):
    out = shutil.copytree(whole.out, tmp_path / "out")
    for words in (["attack", "--attacks", "bf16"], ["calibrate", "--tau", "0.9"]):
        with pytest.raises(SystemExit):
            main(["bench", words[0], str(out), *words[1:], "--at-most", "1", "--json"])
        (told,) = json.loads(capsys.readouterr().out)
        assert told["manifest"]["title"] == "small"
        assert told["lines"]


AT_MOST = 2
"""Items that are asked of each task of a copy."""


@pytest.mark.parametrize(("name", "setting"), [("mllmu", "forget_5"), ("clear", "forget05"), ("tofu", "forget10")])
def test_copies_of_published_benchmarks_go_through(tmp_path, saved, name, setting):
    copy = getattr(copies, name)(tmp_path / "copy")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'title = "{name}"\n[benchmark]\nname = "{name}"\nsetting = "{setting}"\nsource = "{copy}"\n'
        f"[evaluation]\nmax_new_tokens = 2\nat_most = {AT_MOST}\n"
        f'[models]\nvanilla = "{saved["qwen2_vl"]}"\ngold = "{saved["qwen2_vl"]}"\n'
        '[[method]]\nname = "kvw"\nschedule = "one-shot"\ngamma = 0.5\n'
    )
    data = bench_run.load_benchmark(read_recipe(recipe).benchmark)
    assert bench(recipe, tmp_path / "out") == 0
    found = read_results(tmp_path / "out")
    assert {(row.split, row.task) for row in found.rows} == {
        (split, task) for split, tasks in data.splits.items() for task in tasks
    }
    for row in found.rows:
        assert row.cells["vanilla"].items == min(AT_MOST, len(data.task(row.split, row.task).items))
        assert row.cells["vanilla"] == row.cells["gold"]
    asked = sum(min(AT_MOST, len(task.items)) for task in data.splits["forget"].values())
    assert sum(found.outcomes["vanilla"].values()) == asked


def test_the_evaluation_part_decides_what_is_asked():
    data = bench_run.get_benchmark("toy").load()
    everything = questions(data, Protocol(), EvaluationPart())
    assert len(everything) == sum(len(task.items) for tasks in data.splits.values() for task in tasks.values())
    some = questions(data, Protocol(), EvaluationPart(tasks=("retain/text",), at_most=3, max_new_tokens=2))
    assert [(one.split, one.task_name, one.task.max_new_tokens) for one in some] == [("retain", "text", 2)] * 3
    assert questions(data, Protocol(), EvaluationPart(tasks=("retain/text",) * 2)) == questions(
        data, Protocol(), EvaluationPart(tasks=("retain/text",))
    )
    with pytest.raises(kvw.UserError, match="no task"):
        questions(data, Protocol(), EvaluationPart(tasks=("retain/texts",)))


def test_other_data_behind_the_same_name_is_asked_again(tmp_path, saved, asked):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'title = "t"\n[benchmark]\nname = "tofu"\nsetting = "forget10"\nsource = "{tmp_path / "copy"}"\n'
        f'[evaluation]\nmax_new_tokens = 2\nlikelihoods = false\ntasks = ["forget/question", "retain/question"]\n'
        f'[models]\nvanilla = "{saved["llava"]}"\n'
    )
    copies.tofu(tmp_path / "copy")
    assert bench(recipe, tmp_path / "out") == 0
    first = len(asked)
    assert bench(recipe, tmp_path / "out") == 0
    assert len(asked) == first > 0
    table = tmp_path / "copy" / "forget10.json"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[0]["answer"] = "Nobody knows."
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert bench(recipe, tmp_path / "out") == 0
    assert len(asked) == 2 * first


def test_other_weights_behind_the_same_name_are_refused(tmp_path, saved, asked, capsys):
    recipe, model = tmp_path / "recipe.toml", tmp_path / "model"
    shutil.copytree(saved["llava"], model)
    recipe.write_text(TOY.replace('gold = "toy:gold"\n', "").replace("toy:vanilla", str(model)).split("[[method]]")[0])
    recipe.write_text(recipe.read_text() + '[[method]]\nname = "rms-kvw"\n')
    assert bench(recipe, tmp_path / "out") == 0
    weights = load_file(model / "model.safetensors")
    save_file({name: value + 1e-3 for name, value in weights.items()}, model / "model.safetensors", {"format": "pt"})
    asked.clear()
    assert bench(recipe, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "holds answers of other models" in message
    assert "vanilla" in message
    assert asked == []


def test_another_default_is_another_setting(whole, tmp_path, asked, monkeypatch):
    """Continued with a version that has other defaults, a run must not take the earlier answers for its own."""
    shutil.copytree(whole.out, tmp_path / "out")

    method = get_method("subspace")
    read = method.read
    monkeypatch.setattr(method, "read", lambda values: replace(read(values), rank=3))
    assert bench(whole.recipe, tmp_path / "out") == 0
    assert 0 < len(asked) < whole.asked


def test_items_must_be_told_apart():
    data = bench_run.get_benchmark("toy").load()
    task = data.task("retain", "text")
    twice = replace(data, splits={"retain": {"text": replace(task, items=task.items[:1] * 2)}})
    with pytest.raises(kvw.UserError, match="retain/text have the same identifier"):
        questions(twice, Protocol(), EvaluationPart())


def test_methods_may_get_the_examples_with_an_image_alone(tmp_path):
    data = bench_run.get_benchmark("clear").load(copies.clear(tmp_path / "copy"), "forget05")
    every, seen = (
        bench_run.training_examples(data, "forget", BenchmarkPart(name="clear", unlearn_on=which))
        for which in ("everything", "images")
    )
    assert len(every) == len(data.training["forget"])
    assert seen == [example for example in every if example.images]
    assert 0 < len(seen) < len(every)
    with pytest.raises(kvw.UserError, match="no retain examples"):
        bench_run.training_examples(replace(data, training={}), "retain", BenchmarkPart(name="clear"))
