"""Methods by name: their settings on the command line, what their runs leave behind, and what they warn of."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.program import run

import kvw
from kvw.cli.options import MethodOptions
from kvw.measuring.moments import Moment
from kvw.methods.describing import settings_of
from kvw.methods.registry import DEFAULT, METHODS, get_method
from kvw.methods.subspace.labels import labels_of
from kvw.methods.subspace.method import matrices_in, passes
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.runs.request import EraseRequest


@pytest.fixture
def people(tmp_path, monkeypatch):
    """Two people to forget and four to keep, three photos of each."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("forget", 2), ("retain", 4)):
        rows = []
        for person in range(count):
            for photo in range(3):
                image = f"{name}-{person}-{photo}.png"
                Image.new("RGB", (24, 20), (60 * person + 20 * photo, 90, 40 * photo)).save(tmp_path / image)
                row = {"question": "Who is this?", "answer": f"{name.title()} Person {person}", "image": image}
                rows.append(json.dumps(row | {"subject": f"{name} {person}"}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def erase(saved, *more, out="run", retain="retain.jsonl", family="llava"):
    given = ("--forget", "forget.jsonl", "--retain", retain, "--out", out, "--max-new-tokens", 2)
    # Random weights lose by chance what they never knew: the guard has tests of its own.
    return run("erase", saved[family], *given, "--write-damaged", *more)


@pytest.mark.thorough
def test_a_subspace_run_leaves_bounds_and_the_attached_model(people, saved, capsys):
    by_hand = ("--set", "gate=wiener", "--set", "mu=30", "--strength", 1.5, "--set", "held_out_ratio=0")
    assert erase(saved, *by_hand, "--set", "matrices=both") == 0
    record = json.loads((people / "run" / "run.json").read_text())
    assert record["method"] == "subspace"
    chosen = {name: record["settings"][name] for name in ("gate", "mu", "strength", "layers")}
    assert chosen == {"gate": "wiener", "mu": 30.0, "strength": 1.5, "layers": [0, 3]}
    attention = [f"layer.{layer}.attention" for layer in (1, 2, 3)]
    ffns = [f"layer.{layer}" for layer in range(4)]
    assert {found["key"] for found in record["distortion_bounds"]} == {*ffns, *attention}
    assert all(found["relative_distortion"] > 0 for found in record["distortion_bounds"])
    assert all(found["subjects"] == 2 for found in record["distortion_bounds"])
    assert "of their energy" in " ".join(capsys.readouterr().out.split())
    edit = kvw.load_edit("run/edit.safetensors")
    assert isinstance(edit, kvw.LowRankEdit)
    assert edit.metadata.forget_count == 6
    before, after = (load_file(folder / "model.safetensors") for folder in (saved["llava"], people / "run" / "model"))
    model = kvw.load_model(kvw.find_checkpoint(str(saved["llava"])))
    matrices = edit.value_matrices(model)
    places = {False: "mlp.down_proj", True: "self_attn.o_proj"}
    expected = {f"layers.{key.layer}.{places[key.attention]}": edit.changed(m, m.read()) for key, m in matrices.items()}
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == len(expected) == 7
    for name in changed:
        assert any(part in name and torch.equal(after[name], value) for part, value in expected.items())

    card = (people / "run" / "model" / "README.md").read_text()
    assert "--method subspace --set gate=wiener --set mu=30.0" in card or "--set mu=30.0" in card
    assert " directions in 7 value matrices" in card


@pytest.mark.thorough
def test_the_reloaded_checkpoint_scores_what_the_edit_scores_attached(people, saved, capsys):
    assert erase(saved, "--set", "gate=wiener", "--set", "mu=30", "--json") == 0
    expected = json.loads(capsys.readouterr().out)["splits"]["forget"]["unlearned"]
    more = ("--data", "forget.jsonl", "--max-new-tokens", 2, "--json")
    assert run("evaluate", saved["llava"], "--edit", "run/edit.safetensors", *more) == 0
    attached = json.loads(capsys.readouterr().out)["unlearned"]["forget"]
    assert run("evaluate", "run/model", *more) == 0
    (reloaded,) = (splits["forget"] for splits in json.loads(capsys.readouterr().out).values())
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "applied") == 0
    for metric, value in expected.items():
        assert attached[metric] == pytest.approx(value, rel=1e-3), metric
        assert reloaded[metric] == pytest.approx(value, rel=1e-5), metric  # float32, from memory at other addresses
    first, second = (load_file(people / path / "model.safetensors") for path in ("run/model", "applied"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.thorough
def test_forget_people_in_the_retain_set_are_told_before_the_model_is_scored_again(people, saved, capsys):
    # The same pixels in other files and under another name: nothing says that these are the same people.
    for path in people.glob("forget-*.png"):
        Image.open(path).save(people / path.name.replace("forget", "copy"), compress_level=0)
    text = (people / "forget.jsonl").read_text()
    (people / "same.jsonl").write_text(text.replace('"forget-', '"copy-').replace('"forget ', '"somebody else '))
    assert erase(saved, "--no-model", "--set", "gate=thresholded wiener", retain="same.jsonl") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "warning Forget and retain set cannot be told apart in any layer" in shown
    assert "error Nothing would be weakened" in shown
    assert "scoring the unlearned model" not in shown
    assert not (people / "run").exists()


def most(taken, groups):
    """The most bytes of a kind that the value matrices of one group took together."""
    sums = [[sum(sizes) for sizes in zip(*(taken[matrix.key] for matrix in group), strict=True)] for group in groups]
    return [max(sizes) for sizes in zip(*sums, strict=True)]


@pytest.mark.thorough
def test_a_dry_run_finds_that_facts_have_too_few_views(people, saved, capsys):
    assert erase(saved, "--set", "held_out_ratio=1.5", "--dry-run") == 0
    for name in ("forget", "retain"):
        rows = [json.loads(line) for line in (people / f"{name}.jsonl").read_text().splitlines()]
        lines = [json.dumps({key: value for key, value in row.items() if key != "subject"}) for row in rows]
        (people / f"{name}.jsonl").write_text("\n".join(lines))
    capsys.readouterr()
    assert erase(saved, "--set", "held_out_ratio=1.5", "--dry-run") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "needs three of each" in error
    assert "without 'subject' in the data every example is a fact of its own" in error


@pytest.mark.slow
@pytest.mark.thorough
def test_a_dry_run_counts_the_bytes_that_the_run_takes(people, saved, capsys, monkeypatch):
    model = kvw.load_model(kvw.find_checkpoint(str(saved["llava"])))
    taken = {}
    original = kvw.methods.subspace.solution.find_directions

    def weigh(measured, *more):
        sizes = (measured.moment.sums, measured.forget.coefficients, measured.null.coefficients)
        taken[measured.key] = [tensor.nbytes for tensor in sizes]
        return original(measured, *more)

    both = {"matrices": "both"}
    for settings, words in ((both, []), ({**both, "layers_per_pass": 2}, ["--set", "layers_per_pass=2"])):
        words = [*words, "--set", "matrices=both"]
        assert erase(saved, *words, "--dry-run", "--json", out="never") == 0
        memory = json.loads(capsys.readouterr().out)["memory"]
        groups = passes(matrices_in(model, SubspaceSettings(**settings)), SubspaceSettings(**settings))
        with monkeypatch.context() as patch:
            patch.setattr("kvw.methods.subspace.solution.find_directions", weigh)
            assert erase(saved, *words, "--no-model", "--force") == 0
        capsys.readouterr()
        assert memory["passes"] == len(groups)
        assert [memory[name] for name in ("moments", "forget_tokens", "null_tokens")] == most(taken, groups)
        assert memory["largest_moment"] == max(sizes[0] for sizes in taken.values())
    assert erase(saved, "--dry-run", out="elsewhere") == 0
    assert "second moments" in capsys.readouterr().out
    assert not (people / "elsewhere").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "setting",
    [
        "path=layer by layer",
        *(pytest.param(more, marks=pytest.mark.slow) for more in ("schedule=sequential", "retain_rows=7")),
    ],
)
def test_a_dry_run_layer_by_layer_counts_what_waits(people, saved, capsys, monkeypatch, setting):
    words = ["--set", setting, "--set", "matrices=both"]
    with monkeypatch.context() as patch:
        if setting == "retain_rows=7":  # what the option spares the dry run must not take either
            patch.delattr("kvw.measuring.layerwise.WaitingSet.moments")
        assert erase(saved, *words, "--dry-run", "--json", out="never") == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    taken, waiting = {}, []
    original, enter = kvw.methods.subspace.solution.find_directions, kvw.methods.subspace.method._waiting

    def weigh(measured, *more):
        moment = measured.moment
        size = moment.sums.nbytes if isinstance(moment, Moment) else (7 + 1) * moment.coefficients[0].nbytes
        taken[measured.key] = (size, measured.forget.coefficients.nbytes, measured.null.coefficients.nbytes)
        return original(measured, *more)

    def watch(*data):
        sets = enter(*data)
        waiting.append([sum(held) for held in zip(*(found.held_bytes for found in sets), strict=True)])
        return sets

    monkeypatch.setattr("kvw.methods.subspace.solution.find_directions", weigh)
    monkeypatch.setattr("kvw.methods.subspace.method._waiting", watch)
    assert erase(saved, *words, "--no-model", "--force") == 0
    capsys.readouterr()
    assert memory["passes"] == 1
    assert "layer by layer" in memory["path"]
    settings = SubspaceSettings(matrices="both")
    model = kvw.load_model(kvw.find_checkpoint(str(saved["llava"])))
    layers = passes(matrices_in(model, settings), settings, 1)
    assert [memory[name] for name in ("moments", "forget_tokens", "null_tokens")] == most(taken, layers)
    assert memory["largest_moment"] == max(sizes[0] for sizes in taken.values())
    assert ("7 rows" in memory["path"]) == (setting == "retain_rows=7")
    ((states, arguments),) = waiting
    assert memory["states"] == states
    assert arguments <= memory["arguments"] <= 2 * arguments
    assert erase(saved, *words, "--dry-run", out="elsewhere") == 0
    assert "waiting in main memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "gama=1"], ["no setting 'gama' in method subspace", "did you mean 'gamma'"]),
        (["--set", "sources.anser=1"], ["sources of method subspace", "did you mean 'answer'"]),
        (["--set", "rank.x=1"], ["rank", "is no group"]),
        (["--set", "rank=many"], ["Setting rank", "'many'", "integer"]),
        (["--set", "gate=soft"], ["Setting gate", "soft", "'wiener'"]),
        (["--set", "rank"], ["NAME=VALUE"]),
        (["--set", "layers=1"], ["FIRST:LAST"]),
        (["--strength", "2", "--set", "strength=1"], ["'strength' is given twice"]),
        (["--parity"], ["--parity is an option of method kvw", "add --method kvw"]),
        (["--gamma", "1"], ["--gamma is an option of method kvw", "kvw methods subspace"]),
        (["--set", "method=x"], ["no setting 'method' in method subspace"]),
        (["--method", "subspac"], ["no method 'subspac'", "kvw, subspace", "did you mean 'subspace'"]),
        (["--retain", "retain.safetensors"], ["reads the retain examples themselves"]),
    ],
    ids=str,
)
def test_mistakes_name_the_closest(people, saved, capsys, more, words):
    assert run("erase", saved["llava"], "--forget", "forget.jsonl", "--out", "run", *more) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert not (people / "run").exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_is_listed_and_can_be_written_as_it_is_listed(method, capsys):
    assert run("methods", method, "--json") == 0
    listed = {row["name"]: row["default"] for row in json.loads(capsys.readouterr().out)}
    assert get_method(method).read(listed) == get_method(method).read({})
    assert all(setting.text and not setting.text.startswith("See ") for setting in settings_of(method))
    assert run("methods", method) == 0
    assert all(name in capsys.readouterr().out for name in list(listed)[:1])


def test_what_a_method_says_of_a_setting_is_told_and_not_what_its_kind_says():
    texts = {setting.name: setting.text for setting in settings_of("lens-margin")}
    assert texts["retain_weight"].startswith("Weight of the divergence from the model before")
    assert texts["rephrased"].startswith("Also train on every forget question")


def test_methods_are_listed(capsys):
    assert run("methods") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in METHODS)
    assert run("methods", "magic") == 2


def test_requests_from_python_name_a_method_and_its_settings(tmp_path):
    given = {"model": None, "forget": tmp_path, "retain": None, "out": tmp_path}
    assert EraseRequest(**given, method="kvw").settings == kvw.KvwSettings()
    assert EraseRequest(**given).settings == kvw.SubspaceSettings()
    assert MethodOptions().method == DEFAULT
    with pytest.raises(kvw.UserError, match="not the settings of method subspace"):
        EraseRequest(**given, settings=kvw.KvwSettings())


def test_subjects_are_named_by_all_or_by_nobody():
    nobody = [kvw.Example("Who?", "A"), kvw.Example("Who?", "B")]
    somebody = [kvw.Example("Who?", "A", metadata={"subject": "a"}), kvw.Example("Who?", "B", metadata={"subject": 7})]
    assert labels_of(nobody) == kvw.Labels()
    assert labels_of([kvw.Example("Who?", "A", metadata={"subject": 0})]) == kvw.Labels([("0", "A", False)], ["0"])
    assert labels_of(somebody) == kvw.Labels([("a", "A", False), ("7", "B", False)], ["a", "7"])
    with pytest.raises(kvw.UserError, match="name their subject and others do not"):
        labels_of([*nobody, *somebody])
