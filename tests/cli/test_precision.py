"""Quantised and offloaded models through the program."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests import text_models
from tests.cli import test_cli
from tests.cli.test_cli import erase
from tests.program import assert_refused, run

import kvw
from kvw.models.loading import find_checkpoint, load_model

pytestmark = pytest.mark.thorough

people = test_cli.people
QUIET = ("--max-new-tokens", 3)
# Random weights lose by chance what they never knew: the guard has tests of its own.
DATA = ("--method", "kvw", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--write-damaged", *QUIET)


@pytest.fixture(scope="module")
def packed(saved, tmp_path_factory):
    """The tiny LLaVA as a checkpoint of eight-bit weights, with its processor."""
    folder = tmp_path_factory.mktemp("packed") / "model"
    shutil.copytree(saved["llava"], folder)
    load_model(find_checkpoint(str(saved["llava"])), "cpu", quantise="8bit").save_pretrained(folder)
    return folder


def without_images(folder):
    for name in ("forget", "retain"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        text = "\n".join(json.dumps({part: row[part] for part in ("question", "answer")}) for row in rows)
        (folder / f"{name}.jsonl").write_text(text)


def test_a_model_quantised_while_loading_is_written_in_its_own_precision(people, saved, capsys):
    assert erase(saved, "--gamma", 1, "--quantise", "8bit") == 0
    assert "will differ" in capsys.readouterr().err
    record = json.loads((people / "run" / "run.json").read_text())
    assert record["model"]["quantised"] == "bitsandbytes Linear8bitLt"
    assert sum("will differ" in warning for warning in record["warnings"]) == 1
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "model") == 0
    source, first, second = (
        load_file(folder / "model.safetensors")
        for folder in (saved["llava"], people / "run" / "model", people / "model")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert sum(not torch.equal(first[name], source[name]) for name in first) == 1  # layers 1 to L - 3
    assert erase(saved, "--gamma", 1, "--no-model", "--eval-limit", 1, out="full") == 0
    assert json.loads((people / "full" / "run.json").read_text())["model"]["quantised"] == ""
    packed, full = (kvw.load_edit(people / name / "edit.safetensors") for name in ("run", "full"))
    for key, gates in packed.log_gates.items():
        assert not torch.equal(gates, full.log_gates[key])


def test_four_bits(people, tmp_path, capsys):
    text_models.save("llama", tmp_path / "text")
    without_images(people)
    assert run("erase", tmp_path / "text", *DATA, "--quantise", "4bit", "--out", "run") == 0
    record = json.loads((people / "run" / "run.json").read_text())
    assert record["model"]["quantised"] == "bitsandbytes Linear4bit"
    assert (people / "run" / "model" / "model.safetensors").is_file()


def test_maps_that_are_stored_the_other_way_round(people, tmp_path):
    """GPT-2 keeps its matrices transposed, bitsandbytes does not: the files are what counts."""
    source = text_models.save("gpt2", tmp_path / "gpt2")
    without_images(people)
    more = ("--gamma", 1, "--layers", "0:3", "--quantise", "8bit", "--retain-sources", "none")
    assert run("erase", source, *DATA, *more, "--out", "run") == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (source, people / "run" / "model"))
    for key, gates in kvw.load_edit(people / "run" / "edit.safetensors").log_gates.items():
        name = f"transformer.h.{key.layer}.mlp.c_proj.weight"
        torch.testing.assert_close(after[name], before[name] * gates.exp()[:, None])


def test_the_edit_that_was_scored_is_the_one_that_evaluate_attaches(people, saved, capsys):
    assert erase(saved, "--gamma", 1, "--quantise", "8bit", "--no-model", "--json") == 0
    expected = json.loads(capsys.readouterr().out)["splits"]["forget"]
    more = ("--data", "forget.jsonl", "--edit", "run/edit.safetensors", *QUIET, "--json")
    assert run("evaluate", saved["llava"], *more, "--quantise", "8bit") == 0
    found = json.loads(capsys.readouterr().out)
    assert run("evaluate", saved["llava"], *more) == 0
    full = json.loads(capsys.readouterr().out)
    for model in ("original", "unlearned"):
        # Not to the digit: which columns LLM.int8 keeps in full depends on what shares a batch.
        assert found[model]["forget"]["probability"] == pytest.approx(expected[model]["probability"], rel=5e-3)
        assert full[model]["forget"]["probability"] != pytest.approx(expected[model]["probability"], rel=1e-4)
    chat = ("--edit", "run/edit.safetensors", "--quantise", "8bit", *QUIET, "--ask", "Who?")
    assert run("chat", saved["llava"], *chat) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["original", "unlearned"]


def test_statistics_of_another_precision_are_refused(people, saved, capsys):
    measure = ("measure", saved["llava"], "--data", "retain.jsonl")
    assert run(*measure, "--out", "full.safetensors") == 0
    assert run(*measure, "--out", "packed.safetensors", "--quantise", "8bit") == 0
    assert "skipped" not in capsys.readouterr().err
    packed = ("--quantise", "8bit", "--no-model", "--method", "kvw", "--write-damaged")
    forget = ("erase", saved["llava"], "--forget", "forget.jsonl", *QUIET, *packed)
    assert_refused(
        capsys, run(*forget, "--retain", "full.safetensors", "--out", "a"), "other conditions", "quantisation"
    )
    assert run(*forget, "--retain", "packed.safetensors", "--out", "b") == 0


def test_a_packed_checkpoint_gets_an_edit_and_no_model(people, packed, capsys):
    refusal = ("holds quantised weights", "bitsandbytes", "--no-model", "kvw apply")
    assert_refused(capsys, run("erase", packed, *DATA, "--out", "run"), *refusal)
    assert not (people / "run").exists()
    assert run("erase", packed, *DATA, "--gamma", 1, "--no-model", "--out", "run") == 0
    assert run("evaluate", packed, "--data", "forget.jsonl", "--edit", "run/edit.safetensors", *QUIET) == 0
    capsys.readouterr()
    assert_refused(capsys, run("apply", "run/edit.safetensors", packed, "--out", "model"), *refusal)
    assert not (people / "model").exists()
    again = run("erase", packed, *DATA, "--no-model", "--quantise", "8bit", "--out", "again")
    assert_refused(capsys, again, "is quantised already", "--quantise")


def test_subspace_weakening_needs_no_full_precision(people, saved, packed, capsys):
    data = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--write-damaged", *QUIET)
    data += ("--set", "mu=30", "--set", "matrices=both")
    assert run("erase", saved["llava"], *data, "--quantise", "8bit", "--out", "run") == 0
    record = json.loads((people / "run" / "run.json").read_text())
    assert record["model"]["quantised"] == "bitsandbytes Linear8bitLt"
    assert {found["relative_distortion"] for found in record["distortion_bounds"]} == {None}
    source, written = (load_file(name / "model.safetensors") for name in (saved["llava"], people / "run" / "model"))
    changed = [name for name in source if not torch.equal(source[name], written[name])]
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in changed} == {"down_proj", "o_proj"}
    assert run("erase", packed, *data, "--no-model", "--out", "kept") == 0
    assert run("evaluate", packed, "--data", "forget.jsonl", "--edit", "kept/edit.safetensors", *QUIET) == 0


def test_packed_weights_and_the_authors_rounding_exclude_each_other(people, saved, capsys):
    code = erase(saved, "--parity", "--quantise", "8bit")
    assert_refused(capsys, code, "holds quantised weights", "--parity")
    assert not (people / "run").exists()


def test_a_model_that_does_not_fit_is_erased_from_disk(people, saved, monkeypatch, capsys):
    assert erase(saved, "--gamma", 1, "--device", "cpu", out="loaded") == 0
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda *_: {"cpu": 250_000})
    monkeypatch.setenv("KVW_CACHE", str(people / "cache"))
    assert erase(saved, "--gamma", 1, "--device", "auto", out="offloaded") == 0
    assert "skipped" not in capsys.readouterr().err
    loaded, offloaded = (people / name for name in ("loaded", "offloaded"))
    found = json.loads((offloaded / "run.json").read_text())
    assert found["costs"]["device"] == "cpu, weights partly offloaded"
    assert json.loads((loaded / "run.json").read_text())["costs"]["device"] == "cpu"
    first, second = (kvw.load_edit(folder / "edit.safetensors") for folder in (loaded, offloaded))
    assert all(torch.equal(gates, second.log_gates[key]) for key, gates in first.log_gates.items())
    for name in ("model/model.safetensors", "samples.jsonl"):
        assert (loaded / name).read_bytes() == (offloaded / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--device", "cuda:99"], ["no device 'cuda:99'", "cpu", "auto"]),
        (["--device", "toaster"], ["no device 'toaster'"]),
        (["--quantise", "3bit"], ["3bit", "4bit"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["erase", "measure", "evaluate", "chat"])
def test_devices_and_precisions_that_do_not_exist(people, saved, capsys, verb, more, words):
    rest = {
        "erase": (*DATA, "--out", "run"),
        "measure": ("--data", "retain.jsonl", "--out", "x.safetensors"),
        "evaluate": ("--data", "retain.jsonl"),
        "chat": ("--ask", "Who?"),
    }[verb]
    assert_refused(capsys, run(verb, saved["llava"], *rest, *more), *words)
