"""Attacks on finished runs: who is asked, what is kept, and what the tables say."""

from __future__ import annotations

import csv
import io
import json
import shutil
from importlib import import_module

import pytest
from tests.bench.records import MANIFEST, item, record

import kvw
from kvw.bench.attacks import run as attack_run
from kvw.bench.attacks.plan import BEFORE, Attack, Job, Target, find_jobs, find_targets, parse_attacks
from kvw.bench.attacks.record import FOLDER, AttackRecord
from kvw.bench.attacks.results import Attacked, summarise_attacks
from kvw.bench.record import Files, RunFiles
from kvw.bench.results import Choice
from kvw.cli import main
from kvw.data import Example
from kvw.evaluation import generation
from kvw.evaluation.loaded import Loaded
from kvw.models.loading import Checkpoint
from kvw.report.attack_tables import attack_table
from kvw.toy import checkpoint
from kvw.training.planting import finetune
from kvw.training.settings import TrainingSettings

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("small_toy")]

RECIPE = """
title = "small"
[benchmark]
name = "toy"
[models]
vanilla = "toy:vanilla"
gold = "toy:gold"
[evaluation]
at_most = 6
tasks = ["forget/seen", "retain/seen", "retain/text"]
[choice]
keep = 0.5
[[method]]
name = "subspace"
gate = "wiener"
layers = "0:5"
mu = 1.0
"""


def choice(identifier, on):
    return Choice(method="kvw", identifier=identifier, chosen_on=on, settings={}, tried=2, kept=1.0, kept_enough=True)


def attack_record(**changes):
    values = {"identifier": "i", "attacked": "vanilla", "label": "vanilla", "settings": {}, "attack": "bf16"}
    values |= {"steps": 0, "taught_half": None, "taught": 0, "training": {}, "losses": [], "surviving": None}
    values |= {"items": 2, "seconds": {}, "versions": {}}
    return AttackRecord(**(values | changes))


def test_attacks_are_named_once_and_the_closest_is_proposed():
    found = parse_attacks(["int4", "relearn-retain", "int4"], [10, 100])
    assert [one.title for one in found] == ["int4", "relearn-retain 10", "relearn-retain 100"]
    with pytest.raises(kvw.UserError) as caught:
        parse_attacks(["relearn-forgot"], [10])
    assert caught.value.do == "did you mean 'relearn-forget'?"
    with pytest.raises(kvw.UserError, match="steps must be a whole number"):
        parse_attacks(["bf16"], [0])
    for names, steps in (([], [10]), (["bf16"], [])):
        with pytest.raises(kvw.UserError, match="at least one attack"):
            parse_attacks(names, steps)


def test_every_chosen_setting_is_attacked_and_asked_about_the_half_that_did_not_choose_it():
    records = [record(name) for name in ("vanilla", "gold", "kvw-weak", "kvw-strong", "kvw-other")]
    choices = [choice("kvw-weak", 0), choice("kvw-strong", 1)]
    targets = find_targets(MANIFEST, choices, records)
    assert [(one.record.identifier, one.chosen_on) for one in targets] == [
        ("vanilla", (0, 1)),
        ("kvw-weak", (0,)),
        ("kvw-strong", (1,)),
        ("gold", (0, 1)),
    ]
    attacks = parse_attacks(["bf16", "relearn-forget"], [3])
    jobs = [(job.attack.title, job.half, sorted(job.reported)) for job in find_jobs(targets[0], attacks)]
    assert jobs == [("bf16", None, [0, 1]), ("relearn-forget 3", 0, [1]), ("relearn-forget 3", 1, [0])]
    jobs = [(job.attack.title, job.half, sorted(job.reported)) for job in find_jobs(targets[1], attacks)]
    assert jobs == [("bf16", None, [1]), ("relearn-forget 3", 0, [1])]
    one_way = MANIFEST.model_copy(update={"recipe": {"choice": {**MANIFEST.recipe["choice"], "folds": "first"}}})
    assert find_targets(one_way, choices[:1], records)[0].chosen_on == (0,)
    same = [choice("kvw-weak", 0), choice("kvw-weak", 1)]
    assert find_targets(MANIFEST, same, records)[1].chosen_on == (0, 1)


def attacked(name, attack, forget, retain, **changes):
    job = Job(Target(record(name), (0, 1)), attack)
    items = [item("forget", subject, forget) for subject in "abcd"] + [item("retain", one, retain) for one in "efgh"]
    found = None if attack.name == BEFORE else attack_record(attack=attack.name, steps=attack.steps, **changes)
    return Attacked(job, found, items)


def small_results():
    attack = Attack("relearn-retain", 10)
    learnt = {"losses": [2.0, 1.0], "training": {"learning_rate": 1e-3}}
    return summarise_attacks(
        MANIFEST,
        [
            attacked("vanilla", Attack(BEFORE), 0.8, 1.0),
            attacked("vanilla", attack, 0.8, 1.0, **learnt),
            attacked("vanilla", Attack("bf16"), 0.8, 1.0),
            attacked("kvw", Attack(BEFORE), 0.2, 0.9),
            attacked("kvw", attack, 0.6, 0.5, **learnt),
            attacked("kvw", Attack("bf16"), 0.4, 0.9, surviving=0.75),
            attacked("gold", Attack(BEFORE), 0.0, 1.0),
            attacked("gold", attack, 0.08, 1.0, **learnt),
            attacked("gold", Attack("bf16"), 0.0, 1.0),
        ],
    )


def test_shares_are_of_vanilla_before_and_gold_is_the_reference():
    results = small_results()
    assert results.columns == ["before", "relearn-retain 10", "bf16"]
    lines = {(line.model, line.attack): line for line in results.lines}
    after = lines["kvw", "relearn-retain 10"]
    assert after.forget.mean == pytest.approx(0.6)
    assert after.forget_share.mean == pytest.approx(0.75)
    assert after.retain_share.mean == pytest.approx(0.5)
    assert after.beyond_gold == pytest.approx((0.75 - 0.25) - 0.1)
    assert (after.first_loss, after.last_loss) == (2.0, 1.0)
    assert lines["kvw", "bf16"].beyond_gold == pytest.approx(0.25)
    assert [lines[name, "bf16"].beyond_gold for name in ("vanilla", "gold")] == [None, None]
    assert lines["kvw", "before"].beyond_gold is None
    assert after.extraction is None
    assert results.learning_rate == 1e-3


def test_without_gold_or_a_score_of_vanilla_there_is_no_such_number():
    plain = [attacked("vanilla", Attack(BEFORE), 0, 1), attacked("kvw", Attack(BEFORE), 0, 1)]
    results = summarise_attacks(MANIFEST, [*plain, attacked("kvw", Attack("bf16"), 1, 1)])
    assert [line.forget_share for line in results.lines] == [None] * 4
    assert [line.beyond_gold for line in results.lines] == [None] * 4
    assert results.lines[1].forget is None
    assert "beyond gold" not in attack_table(results).text("markdown")


def test_the_forms_of_the_table_have_the_same_numbers():
    results = small_results()
    text = attack_table(results).text("markdown")
    assert "| kvw | 0.250 [0.250, 0.250] | 0.750 [0.750, 0.750] | 0.500 [0.500, 0.500] |" in text
    assert "| kvw | - | +0.400 | +0.250 |" in text
    assert "- kvw, relearn-retain 10: training loss 2.000 in the first step, 1.000 in the last." in text
    assert "- kvw, bf16: 0.750 of the edit is left." in text
    latex = attack_table(results).text("latex")
    assert r"kvw & -- & $+0.400$ & $+0.250$ \\" in latex
    assert r"\multicolumn{4}{l}{Share of vanilla's forget score} \\" in latex
    lines = list(csv.DictReader(io.StringIO(attack_table(results).text("csv"))))
    found = {(line["model"], line["attack"]): line for line in lines}["kvw", "bf16"]
    assert [float(found[name]) for name in ("forget_mean", "forget_share_mean", "surviving")] == [0.4, 0.5, 0.75]


def test_records_come_back_as_they_were(tmp_path):
    files = Files(tmp_path / FOLDER, AttackRecord)
    assert files.record("i") is None
    files.write_record("i", attack_record(losses=[1.0]))
    assert files.record("i") == attack_record(losses=[1.0])
    (tmp_path / "attacks" / "records" / "i.json").write_text("{}")
    with pytest.raises(kvw.UserError, match="this version's"):
        files.record("i")


# From here on whole runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_toy):
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVW_CACHE", str(folder / "cache"))
        assert program("bench", "run", folder / "recipe.toml", "--out", folder / "out") == 0
    return folder / "out"


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def asked(monkeypatch):
    """How many prompts were generated."""
    counted = []
    original = generation._generate

    def counting(model, processor, batch):
        counted.extend(batch)
        return original(model, processor, batch)

    monkeypatch.setattr(generation, "_generate", counting)
    return counted


def program(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def records_of(run):
    return [json.loads(path.read_text()) for path in sorted((run / "attacks" / "records").glob("*.json"))]


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_is_attacked_interrupted_and_gone_on_with(run, asked, monkeypatch, capsys):
    command = ["bench", "attack", run, "--at-most", "2", "--steps", "2", "--learning-rate", "1e-3"]
    command += ["--attacks", "relearn-retain,relearn-forget,bf16,int4"]
    make, made = attack_run._Work.make, []

    def third_fails(self, loaded, job):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(job)
        make(self, loaded, job)

    monkeypatch.setattr(attack_run._Work, "make", third_fails)
    assert program(*command) == 130
    assert len(records_of(run)) == 3
    monkeypatch.setattr(attack_run._Work, "make", make)
    assert program(*command) == 0
    first, everything = len(asked), records_of(run)
    assert len(everything) == 3 * 5
    # Each of 2 + 2 items once in each of 4 attacks on 3 models: the two halves of relearning share them.
    assert first == 4 * 4 * 3
    capsys.readouterr()
    assert program(*command) == 0
    assert len(asked) == first
    assert capsys.readouterr().out.strip() == (run / "attacks.md").read_text().strip()
    assert all((run / f"attacks.{ending}").is_file() for ending in ("tex", "csv"))
    for one in everything:
        trains = one["attack"].startswith("relearn")
        assert (one["steps"], len(one["losses"])) == ((2, 2) if trains else (0, 0))
        assert bool(one["taught"]) == bool(one["training"]) == trains
        assert (one["taught_half"] is not None) == (one["attack"] == "relearn-forget")
        assert (one["surviving"] is not None) == (one["attack"] == "bf16" and one["label"] == "subspace")
    halves = {one["taught_half"]: one["taught"] for one in everything if one["attack"] == "relearn-forget"}
    assert set(halves) == {0, 1}
    # Another rate is another attack.
    assert program(*command[:-3], "1e-2", "--attacks", "relearn-retain") == 0
    assert len(records_of(run)) == len(everything) + 3


@pytest.mark.thorough
def test_nobody_is_asked_about_who_was_trained_on(run):
    assert program("bench", "attack", run, "--attacks", "relearn-forget", "--steps", "1", "--at-most", "4") == 0
    folds = RunFiles(run).manifest().folds
    for one in records_of(run):
        items = Files(run / FOLDER, AttackRecord).items(one["identifier"])
        assert items
        assert {folds[found.subject] for found in items} == {1 - one["taught_half"]}


@pytest.mark.thorough
def test_what_training_left_is_attacked_like_an_edit(run, capsys):
    """A folder with weights in the place of the edit."""
    files = RunFiles(run)
    (identifier,) = [one for one in files.manifest().requests if one.startswith("subspace")]
    loaded = Loaded.load(Checkpoint(checkpoint("vanilla"), "toy:vanilla"))
    little = TrainingSettings(learning_rate=1e-7)
    result = finetune(loaded.model, loaded.processor, [Example("Who is this?", "nobody")], little)
    result.save(run / "edits" / identifier)
    command = ["bench", "attack", run, "--attacks", "int8", "--at-most", "4"]
    assert program(*command) == 0
    lines = list(csv.DictReader(io.StringIO((run / "attacks.csv").read_text())))
    after = {line["model"]: line["forget_mean"] for line in lines if line["attack"] == "int8"}
    assert after["subspace"] == after["vanilla"]  # nothing was unlearned
    files.edit_file(identifier).unlink()
    shutil.rmtree(run / "edits" / identifier)
    assert program(*command[:-4], "--attacks", "bf16") == 2
    assert "no edit file" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.parametrize("several_settings", [False, True])
def test_planted_models_are_found_beside_the_run(run, several_settings, monkeypatch):
    planting = {"base": "b", "base_fingerprint": "", "settings": {}, "examples": 1, "examples_digest": "", "losses": []}
    planting |= {"stopped": "", "seconds": 0.0, "versions": {}}
    for label in ("vanilla", "gold"):
        model = (run.parent if several_settings else run) / "models" / f"{label}-1"
        shutil.copytree(checkpoint(label), model)
        for path in (run / "records").glob(f"{label}*"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"planting": planting, "model": model.name}))
    monkeypatch.setattr(
        import_module("kvw.cli.bench.asking"), "find_model", lambda _: pytest.fail("looked for elsewhere")
    )
    assert program("bench", "attack", run, "--attacks", "int8", "--at-most", "2") == 0
    assert {one["label"] for one in records_of(run)} == {"vanilla", "gold", "subspace"}


@pytest.mark.thorough
def test_mistakes_are_told(run, tmp_path, capsys):
    for options, said in (
        (["--attacks", "int5"], "did you mean 'int8'?"),
        (["--steps", "ten"], "whole numbers, separated by commas"),
        (["--at-most", "-1"], "0 asks all"),
    ):
        assert program("bench", "attack", run, *options) == 2
        assert said in capsys.readouterr().err
    assert program("bench", "attack", tmp_path / "nothing") == 2
    assert "There is no benchmark run" in capsys.readouterr().err
    for path in (run / "records").glob("gold*"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_fingerprint": "0" * 64}))
    assert program("bench", "attack", run, "--attacks", "bf16") == 2
    assert "not the model that the run has asked" in capsys.readouterr().err
