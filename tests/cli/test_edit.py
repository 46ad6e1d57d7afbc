"""``kvw edit`` as a user meets it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fixtures import built
from tests.program import assert_refused, run

import kvw
from kvw.edits import EditMetadata, GateEdit, LowRankEdit, RoundedGateEdit
from kvw.edits.low_rank import Directions
from kvw.edits.served_adapters import RANKS
from kvw.methods.conditional_kvw.settings import ConditionalKvwSettings
from kvw.methods.describing import acting
from kvw.methods.registry import METHODS, get_method
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.subspace.baselines.settings import MemitZeroSettings
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey


def saved_edit(path, seed, **metadata):
    """Gates for the tiny LLaVA, half of them 1."""
    generator = torch.Generator().manual_seed(seed)
    logs = {
        matrix.key: -torch.rand(matrix.width, generator=generator)
        * (torch.rand(matrix.width, generator=generator) < 0.5)
        for matrix in find_value_matrices(built("llava")[0])
    }
    settings = {"gamma": 0.1 * seed, "schedule": "one-shot"}
    origin = {"base_model": "llava", "forget_digest": f"{seed}" * 64, "forget_count": seed} | metadata
    edit = GateEdit(logs, EditMetadata(method="kvw", settings=settings, **origin))
    edit.save(path)
    return edit


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A fresh folder with two edits in it."""
    monkeypatch.chdir(tmp_path)
    return [saved_edit(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate("ab", 1)]


def gates(path):
    return kvw.load_edit(path).log_gates


def assert_equal(one, other):
    assert set(one) == set(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_compose_adds_requests_up(files, capsys):
    assert run("edit", "compose", "a.safetensors", "b.safetensors", "--out", "both.safetensors") == 0
    out = capsys.readouterr().out
    assert "both.safetensors weakens" in out
    assert "kvw edit show both.safetensors" in out
    assert_equal(gates("both.safetensors"), kvw.compose(*files).log_gates)
    assert kvw.load_edit("both.safetensors").metadata.parents == tuple(edit.metadata for edit in files)


def test_scale_says_that_what_is_gone_stays_gone(tmp_path, capsys):
    unit = torch.eye(8)[:, :1]
    for name, log_gate, said in (("gone", -1e4, True), ("weak", -2.0, False)):
        edit = LowRankEdit({MatrixKey(1): Directions(unit, unit, torch.tensor([log_gate]))})
        edit.save(tmp_path / f"{name}.safetensors")
        out = tmp_path / f"{name}-part.safetensors"
        assert run("edit", "scale", tmp_path / f"{name}.safetensors", "--strength", 0.1, "--out", out) == 0
        assert ("stays 0 at any strength" in " ".join(capsys.readouterr().err.split())) == said


def test_mix_weakens_what_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unit = torch.eye(8)[:, :1]
    LowRankEdit({MatrixKey(1): Directions(unit, unit, torch.tensor([-1e4]))}).save(tmp_path / "gone.safetensors")
    assert run("edit", "mix", "gone.safetensors", "--share", 0.1, "--out", "part.safetensors") == 0
    part = kvw.load_edit("part.safetensors")
    torch.testing.assert_close(part.directions[MatrixKey(1)].changes(part.strength), torch.tensor([-0.1]))
    assert part.metadata.settings == {"share": 0.1}


def test_scale_weakens(files):
    assert run("edit", "scale", "a.safetensors", "--strength", 0.5, "--out", "half.safetensors") == 0
    assert_equal(gates("half.safetensors"), kvw.scale(files[0], 0.5).log_gates)


@pytest.mark.thorough
def test_invert_then_apply_brings_the_checkpoint_back(files, saved, tmp_path, capsys):
    assert run("edit", "invert", "a.safetensors", "--out", "undo.safetensors") == 0
    assert "strengthens" in capsys.readouterr().out
    assert run("apply", "a.safetensors", saved["llava"], "--out", "edited") == 0
    assert run("apply", "undo.safetensors", "edited", "--out", "back") == 0
    folders = (saved["llava"], tmp_path / "edited", tmp_path / "back")
    first, edited, last = (load_file(folder / "model.safetensors") for folder in folders)
    assert any(not torch.equal(first[name], edited[name]) for name in first)
    for name, weight in first.items():
        torch.testing.assert_close(last[name], weight, rtol=2 * 2**-23, atol=0)


def test_an_inverse_is_not_written_into_a_bfloat16_checkpoint(files, saved, capsys, tmp_path):
    assert run("edit", "invert", "a.safetensors", "--out", "undo.safetensors") == 0
    shutil.copytree(saved["llava"], tmp_path / "coarse")
    weights = load_file(tmp_path / "coarse" / "model.safetensors")
    weights = {name: weight.bfloat16() for name, weight in weights.items()}
    save_file(weights, tmp_path / "coarse" / "model.safetensors", {"format": "pt"})
    code = run("apply", "undo.safetensors", "coarse", "--out", "back")
    assert_refused(capsys, code, "rounding is not undone", "restore the original checkpoint")
    assert not (tmp_path / "back").exists()


@pytest.mark.thorough
def test_an_inverse_on_weights_without_an_edit_is_noticed(saved, tmp_path, monkeypatch, capsys):
    from kvw.measuring.fingerprint import weights_digest

    monkeypatch.chdir(tmp_path)
    saved_edit("a.safetensors", 1, model_fingerprint=weights_digest(saved["llava"]))
    assert run("edit", "invert", "a.safetensors", "--out", "undo.safetensors") == 0
    assert run("apply", "a.safetensors", saved["llava"], "--out", "edited") == 0
    assert run("apply", "undo.safetensors", "edited", "--out", "back") == 0
    assert "warning" not in capsys.readouterr().err
    assert run("apply", "undo.safetensors", saved["llava"], "--out", "stronger") == 0
    assert "without any edit in them" in capsys.readouterr().err


def test_show_prints_where_an_edit_comes_from_and_what_it_does(files, capsys):
    assert run("edit", "compose", "a.safetensors", "b.safetensors", "--out", "both.safetensors") == 0
    assert run("edit", "scale", "both.safetensors", "--strength", 0.5, "--out", "half.safetensors") == 0
    capsys.readouterr()
    assert run("edit", "show", "half.safetensors") == 0
    out = capsys.readouterr().out
    for words in ("scale, strength 0.5", "llava", "part 1 ", "compose", "part 1.2", "kvw, gamma 0.2", "2 examples"):
        assert words in out, out
    assert "stronger" not in out
    assert run("edit", "show", "half.safetensors", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    edit = kvw.load_edit("half.safetensors")
    assert found["kind"] == "gates"
    assert found["metadata"] == json.loads(edit.metadata.model_dump_json())
    assert found["layers"] == [layer.model_dump() for layer in edit.describe()]


@pytest.mark.parametrize(
    ("settings", "shown", "hidden"),
    [
        (kvw.SubspaceSettings(mu=0.25), ["gate wiener", "mu 0.25", "sources."], ["gamma", "quantile", "threshold"]),
        (kvw.SubspaceSettings(gate="exponential"), ["gamma 2.0", "quantile 0.9"], ["mu"]),
        (kvw.SubspaceSettings(gate="hard", threshold=0.5), ["threshold 0.5"], ["mu", "gamma", "quantile"]),
        (MemitZeroSettings(mu=3.0), ["mu 3.0", "shrinkage 0.1"], ["layers_per_pass"]),
        (kvw.KvwSettings(schedule="one-shot"), ["gamma 0.02", "retain_contrast True"], ["seed"]),
        (kvw.KvwSettings(), ["seed 0"], []),
        (ConditionalKvwSettings(energy=0.1), ["energy 0.1"], ["ratio"]),
        (SteeringSettings(energy=0.1), ["energy 0.1", "ridge 0.1"], ["ratio", "step", "random_start", "target"]),
    ],
)
def test_show_prints_the_settings_that_acted(files, capsys, settings, shown, hidden):
    made_by = next(name for name in METHODS if get_method(name).accepts(settings))
    metadata = EditMetadata(method=made_by, settings=asdict(settings))
    kvw.GateEdit({MatrixKey(1): -torch.ones(3)}, metadata).save("own.safetensors")
    assert run("edit", "show", "own.safetensors") == 0
    out = " ".join(capsys.readouterr().out.split("weights")[0].split())
    assert [words for words in shown if words not in out] == []
    assert [name for name in hidden if f" {name} " in out] == []


def test_all_settings_that_are_set_count_if_the_method_is_not_known():
    recorded = {"gate": "hard", "mu": 1.0, "rank": None, "group": {"inner": 2}}
    assert acting(recorded, "theirs") == {"gate": "hard", "mu": 1.0, "group.inner": 2}
    assert acting(recorded, "subspace") == {"gate": "hard", "group.inner": 2}


def test_show_prints_nothing_that_moves_the_cursor(files, capsys):
    metadata = EditMetadata(method="a\x1b[2Jb", settings={"x": "\x1b[31m\n"}, base_model="c\x07\nd")
    kvw.GateEdit({MatrixKey(1): -torch.ones(3)}, metadata).save("own.safetensors")
    assert run("edit", "show", "own.safetensors") == 0
    assert not set(capsys.readouterr().out) & {"\x1b", "\x07"}


def test_show_counts_what_is_strengthened(files, capsys):
    assert run("edit", "invert", "a.safetensors", "--out", "undo.safetensors") == 0
    capsys.readouterr()
    assert run("edit", "show", "undo.safetensors") == 0
    assert "stronger" in capsys.readouterr().out


def test_diff_compares_layer_by_layer(files, capsys):
    assert run("edit", "diff", "a.safetensors", "b.safetensors", "--json") == 0
    assert json.loads(capsys.readouterr().out) == kvw.diff(*files).model_dump(mode="json")
    assert run("edit", "diff", "a.safetensors", "a.safetensors") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if "layer." in line or " all " in line] == [
        *(f"layer.{layer}" for layer in range(4)),
        "all",
    ]
    assert all("1.000" in line for line in lines if "layer." in line)


@pytest.mark.parametrize("form", ["ia3", "lora"])
def test_export_and_import(files, form, saved, tmp_path, capsys):
    assert run("edit", "export", "a.safetensors", saved["llava"], "--format", form, "--out", "adapter") == 0
    assert "peft.PeftModel.from_pretrained(model, 'adapter')" in capsys.readouterr().out
    assert peft.PeftConfig.from_pretrained("adapter").base_model_name_or_path == "llava"
    assert run("edit", "import", "adapter", saved["llava"], "--out", "back.safetensors") == 0
    for key, logs in gates("back.safetensors").items():
        torch.testing.assert_close(logs.exp(), files[0].log_gates[key].exp(), rtol=0, atol=2e-7)
    assert kvw.load_edit("back.safetensors").metadata == files[0].metadata


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_adapter_for_an_engine_has_the_rank_that_show_prints_or_room_for_it(files, saved, engine, capsys):
    assert run("edit", "show", "a.safetensors", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    export = ("edit", "export", "a.safetensors", saved["llava"], "--format", "lora", "--for", engine, "--out", "served")
    assert run(*export) == 0
    said = capsys.readouterr().out
    settings = json.loads(Path("served/adapter_config.json").read_text())
    assert shown["bytes"] == Path("a.safetensors").stat().st_size
    assert shown["rank"] == max(int((values != 0).sum()) for values in files[0].log_gates.values())
    assert settings["r"] == settings["lora_alpha"] == next(rank for rank in RANKS if rank >= shown["rank"])
    assert ("vllm serve" in said, f"rank {settings['r']}" in said) == (engine == "vllm", True)


def test_an_imported_foreign_adapter_is_for_the_model_it_was_read_with(files, saved, tmp_path):
    assert run("edit", "export", "a.safetensors", saved["llava"], "--format", "ia3", "--out", "adapter") == 0
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(weights), weights)
    assert run("edit", "import", "adapter", saved["llava"], "--out", "back.safetensors") == 0
    assert kvw.load_edit("back.safetensors").metadata.base_model == "llava"


def test_a_lora_from_other_weights_is_noticed(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved_edit("a.safetensors", 1, model_fingerprint="f" * 64)
    export = ("edit", "export", "a.safetensors", saved["llava"], "--format", "lora", "--out", "adapter")
    assert_refused(capsys, run(*export), "made on other weights", "--other-weights")
    assert run(*export, "--other-weights") == 0
    assert "other weights" in capsys.readouterr().err


VERBS = {
    "compose": ["compose", "a.safetensors", "b.safetensors", "--out", "out.safetensors"],
    "scale": ["scale", "a.safetensors", "--strength", "0.5", "--out", "out.safetensors"],
    "mix": ["mix", "a.safetensors", "--share", "0.5", "--out", "out.safetensors"],
    "invert": ["invert", "a.safetensors", "--out", "out.safetensors"],
    "import": ["import", "adapter", "MODEL", "--out", "out.safetensors"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_edit_file_is_replaced_by_force_only(files, saved, tmp_path, verb, capsys):
    assert run("edit", "export", "a.safetensors", saved["llava"], "--format", "ia3", "--out", "adapter") == 0
    capsys.readouterr()
    arguments = ["edit", *(str(saved["llava"]) if word == "MODEL" else word for word in VERBS[verb])]
    (tmp_path / "out.safetensors").write_text("precious")
    assert_refused(capsys, run(*arguments), "out.safetensors exists", "--force")
    assert_refused(capsys, run(*arguments, "--force"), "not a file that this command writes")
    assert (tmp_path / "out.safetensors").read_text() == "precious"
    (tmp_path / "out.safetensors").unlink()
    assert run(*arguments) == 0
    assert run(*arguments, "--force") == 0
    assert len(gates("out.safetensors")) == 4
    assert_refused(capsys, run(*arguments[:-1], "edit.bin"), "ends in .safetensors", "edit.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert_refused(capsys, run(*arguments[:-1], "folder.safetensors", "--force"), "is a folder")


def test_no_verb_replaces_what_it_reads(files, saved, capsys):
    code = run("edit", "invert", "a.safetensors", "--out", "./a.safetensors", "--force")
    assert_refused(capsys, code, "this command reads")
    export = ("edit", "export", "a.safetensors", saved["llava"], "--format", "ia3", "--force", "--out")
    assert_refused(capsys, run(*export, "."), "which this run reads")
    assert_equal(gates("a.safetensors"), files[0].log_gates)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nowhere.safetensors"], ["no edit file nowhere.safetensors", "kvw erase"]),
        (["show", "text.safetensors"], ["not a safetensors file"]),
        (["diff", "a.safetensors", "nowhere.safetensors"], ["no edit file"]),
        (["diff", "a.safetensors", "narrow.safetensors"], ["different widths", "layer.0"]),
        (["compose", "a.safetensors", "--out", "x.safetensors"], ["at least two"]),
        (["compose", "a.safetensors", "other.safetensors", "--out", "x.safetensors"], ["different weights"]),
        (["compose", "a.safetensors", "narrow.safetensors", "--out", "x.safetensors"], ["different widths"]),
        (["compose", "a.safetensors", "rounded.safetensors", "--out", "x.safetensors"], ["different kinds"]),
        (
            ["scale", "a.safetensors", "--strength", "1.5", "--out", "x.safetensors"],
            ["0 to 1", "1.5", "--strength 0.5"],
        ),
        (["scale", "a.safetensors", "--strength=-1", "--out", "x.safetensors"], ["strength", "-1"]),
        (["scale", "a.safetensors", "--strength", "nan", "--out", "x.safetensors"], ["strength", "nan"]),
        (
            ["scale", "rounded.safetensors", "--strength", "0.5", "--out", "x.safetensors"],
            ["'rounded gates'", "scaled"],
        ),
        (
            ["mix", "a.safetensors", "--share", "1.5", "--out", "x.safetensors"],
            ["0 to 1", "1.5", "--share 0.5"],
        ),
        (["mix", "a.safetensors", "--share", "nan", "--out", "x.safetensors"], ["share", "nan"]),
        (["mix", "rounded.safetensors", "--share", "0.5", "--out", "x.safetensors"], ["'rounded gates'", "mixed"]),
        (["invert", "rounded.safetensors", "--out", "x.safetensors"], ["'rounded gates'", "inverted", "original"]),
        (["export", "a.safetensors", "MODEL", "--format", "vera", "--out", "x"], ["vera"]),
        (["export", "a.safetensors", "MODEL", "--format", "ia3", "--for", "vllm", "--out", "x"], ["--format lora"]),
        (["export", "a.safetensors", "OTHER", "--format", "ia3", "--out", "x"], ["does not fit"]),
        (["export", "rounded.safetensors", "MODEL", "--format", "ia3", "--out", "x"], ["no form as an adapter"]),
        (["export", "a.safetensors", "MODEL", "--format", "ia3", "--out", "full"], ["not empty", "--force"]),
        (["scale", "a.safetensors", "--strength", "0", "--out", "x.safetensors"], ["does nothing"]),
        (["export", "a.safetensors", "no/where", "--format", "ia3", "--out", "x"], ["no/where"]),
        (["import", "full", "MODEL", "--out", "x.safetensors"], ["not a PEFT adapter", "no adapter_config.json"]),
    ],
    ids=lambda value: "-".join(value)[:60],
)
def test_mistakes_have_messages(files, saved, tmp_path, capsys, arguments, words):
    saved_edit("a.safetensors", 1, model_fingerprint="a" * 64)
    saved_edit("other.safetensors", 2, model_fingerprint="b" * 64)
    GateEdit({MatrixKey(0): -torch.ones(3)}).save("narrow.safetensors")
    matrices = find_value_matrices(built("llava")[0])
    RoundedGateEdit({matrix.key: torch.full((1, matrix.width), 0.5) for matrix in matrices}).save("rounded.safetensors")
    (tmp_path / "text.safetensors").write_text("not an edit")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    models = {"MODEL": saved["llava"], "OTHER": saved["qwen2_vl"]}
    assert_refused(capsys, run("edit", *(models.get(word, word) for word in arguments)), *words)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.safetensors").exists()
