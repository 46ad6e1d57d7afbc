"""Methods that train, from kvw erase: what is said before, what is written, and that the model is what it was."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.gradient import FORGET, RETAIN, weights_of
from tests.program import run

from kvw.edits import WeightsEdit, load_edit
from kvw.evaluation.loaded import Loaded
from kvw.methods.registry import get_method
from kvw.models.loading import find_checkpoint
from kvw.progress import unheard

pytestmark = pytest.mark.thorough

FAST = ("--set", "learning_rate=1e-3", "--set", "batch_size=2")


@pytest.fixture
def erase(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, people in (("forget", ("Ann", "Bob")), ("retain", ("Cid", "Dan", "Eve", "Fay", "Gus", "Hal"))):
        rows = [{"question": f"Who is {one}?", "answer": f"{one} is here.", "subject": one} for one in people]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def erased(*more):
        given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "run", "--max-new-tokens", 2)
        # Random weights lose by chance what they never knew: the guard has tests of its own.
        return run("erase", saved["llava"], *given, "--write-damaged", *more)

    return erased


def test_the_model_and_the_edit_hold_the_share_that_was_chosen(erase, saved, tmp_path, capsys):
    assert erase("--method", "npo", *FAST) == 0
    captured = capsys.readouterr()
    shown, told = (" ".join(text.split()) for text in (captured.out, captured.err))
    assert "npo trains the model in 1 step of up to 2 forget and 2 retain examples" in told
    assert told.index("npo trains") < told.index("done scoring the original model")
    edit = load_edit("run/edit.safetensors")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert isinstance(edit, WeightsEdit)
    assert (record["method"], record["edit_digest"]) == ("npo", edit.digest())
    assert record["settings"]["chosen"] == {"share": edit.share}
    before, after = (load_file(folder / "model.safetensors") for folder in (saved["llava"], tmp_path / "run" / "model"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == len(edit.weights) > 0
    assert "weights were trained" in (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"in {len(edit.weights)} weights were trained." in shown
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "applied") == 0
    applied = load_file(tmp_path / "applied" / "model.safetensors")
    assert all(torch.equal(applied[name], value) for name, value in after.items())
    assert run("edit", "show", "run/edit.safetensors") == 0
    assert "weights were trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "values"), [("ga", {"learning_rate": 1e-3}), ("ga", {"lora.rank": 2}), ("manu", {"share": 0.3})]
)
def test_the_model_is_what_it_was_and_the_edit_is_what_training_made(saved, method, values):
    loaded, found = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu"), get_method(method)
    before, settings = weights_of(loaded.model), found.read(values)
    edit = found.make(loaded, FORGET, RETAIN, settings, unheard).edit
    assert all(torch.equal(value, before[name]) for name, value in weights_of(loaded.model).items())
    found.train(loaded, FORGET, RETAIN, settings, progress=unheard)
    trained = weights_of(loaded.model)
    assert {name for name in before if not torch.equal(before[name], trained[name])} <= set(edit.weights)
    assert all(torch.equal(trained[name], value) for name, value in edit.weights.items())


def test_a_training_that_is_stopped_is_told(saved):
    loaded, found = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu"), get_method("grad-diff")
    settings = found.read({"retain_ceiling": 1e-9})
    (warning,) = found.make(loaded, FORGET, RETAIN, settings, unheard).warnings
    assert warning.startswith("Training was stopped early: ")


@pytest.mark.parametrize("method", ["npo", "manu"])
def test_a_dry_run_times_a_step_and_changes_nothing(saved, method):
    loaded, found = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu"), get_method(method)
    before = weights_of(loaded.model)
    values = {"learning_rate": 1e-3, "epochs": 3} if method == "npo" else {"share": 0.3}
    plan = found.plan(loaded, loaded.prepare(FORGET), loaded.prepare(RETAIN), found.read(values))
    assert plan.seconds["weakening"] > 0
    assert all(torch.equal(value, before[name]) for name, value in weights_of(loaded.model).items())


def test_answers_that_nobody_gives_cannot_be_preferred(erase, tmp_path, capsys):
    assert erase("--method", "dpo") == 2
    assert "a forget file has none" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_settings_of_another_method_are_not_its_own():
    npo, ga = get_method("npo"), get_method("ga")
    assert npo.accepts(npo.read({}))
    assert not npo.accepts(ga.read({}))


def test_text_of_the_command_line_gives_the_settings_of_a_recipe():
    method = get_method("npo")
    text = {"beta": "0.4", "epochs": "2", "lora.rank": "8", "parts": "language, vision", "clip": "none"}
    assert method.read(text) == method.read(
        {"beta": 0.4, "epochs": 2, "lora": {"rank": 8}, "parts": ["language", "vision"], "clip": None}
    )
    assert method.read({"lora": "none"}) == method.read({})
