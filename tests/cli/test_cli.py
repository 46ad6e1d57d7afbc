"""The program as a user meets it: exit codes, messages, files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.families import build_family
from tests.program import assert_refused, run
from transformers import AutoConfig

import kvw
from kvw.claim import claimed
from kvw.errors import UserError
from kvw.mark import write_mark


def write_people(folder):
    for name, count in (("forget", 4), ("retain", 7)):
        lines = []
        for index in range(count):
            image = f"{name}-{index}.png"
            Image.new("RGB", (24 + index, 20), (30 * index, 80, 120)).save(folder / image)
            row = {"question": f"Who is person {index}?", "answer": f"{name.title()} Number {index}"}
            lines.append(json.dumps(row | ({"image": image} if index % 2 else {})))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def people(tmp_path, monkeypatch):
    """A fresh folder with a user's data in it."""
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def erased_once(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("erased")
    write_people(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KVW_CACHE", str(folder / "cache"))
        assert erase(saved) == 0
    return folder / "run"


@pytest.fixture
def erased(people, erased_once):
    """The same with what ``erase(saved)`` leaves there, in ``run``."""
    shutil.copytree(erased_once, people / "run")
    return people


def erase(saved, *more, family="llava", out="run"):
    common = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", out)
    common = common[:4] if "--out" in more else common
    # Random weights lose by chance what they never knew: the guard has tests of its own.
    common += () if "--method" in more else ("--method", "kvw", "--write-damaged")
    # How the strength is chosen is for tests/runs/test_choosing.py.
    common += () if {"--gamma", "--dry-run", "--method"} & {*more} else ("--gamma", 1)
    short = () if "--max-new-tokens" in more else ("--max-new-tokens", 3)
    return run("erase", saved[family], *common, *short, *more)


def test_every_public_name_exists():
    for name in kvw.__all__:
        assert getattr(kvw, name) is not None
    with pytest.raises(AttributeError):
        kvw.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "family",
    ["llava", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("qwen2_vl", "qwen2_5_vl"))],
)
def test_erase_leaves_a_model_an_edit_and_the_numbers(people, saved, family, capsys):
    assert erase(saved, "--gamma", 2, "--eval", "again=retain.jsonl", family=family) == 0
    assert "before" in capsys.readouterr().out
    written = {path.name for path in (people / "run").iterdir()}
    assert written == {".kvw", "edit.safetensors", "run.json", "samples.jsonl", "report.html", "evidence.json", "model"}
    record = json.loads((people / "run" / "run.json").read_text())
    assert record["settings"]["gamma"] == 2
    assert record["forget"]["count"] == 4
    assert set(record["splits"]) == {"forget", "retain", "again"}
    assert record["asked"] == {"keep": 0.98, "retain": True, "sources": list(kvw.retain.SOURCES)} | {
        "neighbours": False,
        "write_damaged": True,
        "quantise": "",
        "template_options": {},
    }
    assert " --write-damaged\n" in (people / "run" / "model" / "README.md").read_text()
    assert str(people) not in (people / "run" / "run.json").read_text()
    samples = [json.loads(line) for line in (people / "run" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 4 + 7 + 7
    assert {"question", "reference", "original", "unlearned"} <= samples[0].keys()

    edit = kvw.load_edit(people / "run" / "edit.safetensors")
    assert edit.metadata.base_model == family
    before = load_file(saved[family] / "model.safetensors")
    after = load_file(people / "run" / "model" / "model.safetensors")
    changed = sorted(name for name in before if not torch.equal(before[name], after[name]))
    assert changed == sorted(
        name for name in before if any(f"layers.{key.layer}.mlp.down_proj" in name for key in edit.widths)
    )
    for key, gates in edit.log_gates.items():
        (name,) = [name for name in changed if f"layers.{key.layer}.mlp" in name]
        torch.testing.assert_close(after[name], before[name] * gates.exp())


@pytest.mark.thorough
def test_a_second_run_skips_the_retain_pass_and_says_so(people, saved, capsys, monkeypatch):
    def measured_and_no_more(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kvw.runs.solving.make_edit", measured_and_no_more)
        assert erase(saved, out="first") == 130
    assert "skipped" not in capsys.readouterr().err
    assert erase(saved, "--layers", "0:1", "--gamma", 0.5, out="second") == 0
    assert "the pass is skipped" in capsys.readouterr().err
    assert json.loads((people / "second" / "run.json").read_text())["retain_statistics_reused"]
    (people / "retain.jsonl").write_text((people / "retain.jsonl").read_text().replace("Who", "What"))
    monkeypatch.setattr("kvw.runs.solving.make_edit", measured_and_no_more)
    assert erase(saved, out="third") == 130
    assert "skipped" not in capsys.readouterr().err


@pytest.mark.thorough
def test_answers_of_the_model_as_it_is_are_kept_for_the_next_run(people, saved, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("kvw.runs.solving.make_edit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert erase(saved, out="interrupted") == 130
    assert "goes on from what was kept" in capsys.readouterr().err
    assert erase(saved, out="second") == 0
    assert "answers are there from an earlier run" in capsys.readouterr().err
    monkeypatch.setenv("KVW_CACHE", str(people / "cache"))
    assert erase(saved, out="third") == 0
    assert "from an earlier run" not in capsys.readouterr().err
    assert (people / "third/samples.jsonl").read_text() == (people / "second/samples.jsonl").read_text()


@pytest.mark.thorough
def test_text_only_examples_work_and_of_several_processes_the_first_works_on_edit_files(people, saved, monkeypatch):
    rows = [{"question": f"Where does {name} live?", "answer": "Paris"} for name in "abc"]
    (people / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert erase(saved, "--no-model") == 0
    assert not (people / "run" / "model").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, written in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        assert run("edit", "scale", "run/edit.safetensors", "--strength", "0.5", "--out", "half.safetensors") == 0
        assert (people / "half.safetensors").exists() == written


@pytest.mark.thorough
def test_measure_then_erase_from_the_statistics_file(people, saved, capsys):
    few = (people / "retain.jsonl").read_text().splitlines()[:4]  # of so few none is held out
    (people / "retain.jsonl").write_text("\n".join(few) + "\n")
    assert run("measure", saved["llava"], "--data", "retain.jsonl", "--out", "retain.safetensors", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 4
    assert erase(saved, "--gamma", 0.5, out="from-data") == 0
    forget = ("--method", "kvw", "--forget", "forget.jsonl", "--retain", "retain.safetensors", "--gamma", 0.5)
    forget += ("--max-new-tokens", 3)
    assert run("erase", saved["llava"], *forget, "--out", "from-file") == 0
    first, second = (kvw.load_edit(people / name / "edit.safetensors") for name in ("from-data", "from-file"))
    assert "No retain questions were asked" in capsys.readouterr().out
    assert json.loads((people / "from-file" / "run.json").read_text())["retain"]["file"] == "retain.safetensors"
    assert first.metadata.retain_digest == second.metadata.retain_digest
    for key in first.log_gates:
        assert torch.equal(first.log_gates[key], second.log_gates[key])
    code = run("erase", saved["llava"], *forget, "--out", "other", "--positions", "all")
    assert_refused(capsys, code, "other conditions", "positions")


@pytest.mark.thorough
def test_apply_writes_what_erase_wrote(erased, saved):
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "model") == 0
    first, second = (load_file(erased / path / "model.safetensors") for path in ("run/model", "model"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.thorough
def test_evaluate_with_an_edit_scores_what_erase_scored(erased, saved, capsys):
    expected = json.loads((erased / "run" / "run.json").read_text())["splits"]["forget"]
    more = ("--edit", "run/edit.safetensors", "--max-new-tokens", 3, "--samples", "s.jsonl", "--json")
    assert run("evaluate", saved["llava"], "--data", "forget.jsonl", *more) == 0
    found = json.loads(capsys.readouterr().out)
    for model in ("original", "unlearned"):
        for metric, value in found[model]["forget"].items():
            assert value == pytest.approx(expected[model][metric], rel=1e-4), metric
    assert len((erased / "s.jsonl").read_text().splitlines()) == 4


@pytest.mark.thorough
def test_chat_asks_both_models(erased, saved, capsys, monkeypatch):
    more = ("--edit", "run/edit.safetensors", "--image", "forget-1.png", "--max-new-tokens", 3)
    assert run("chat", saved["llava"], *more, "--ask", "Who is this?") == 0
    lines = capsys.readouterr().out.splitlines()
    (before, original), (after, unlearned) = (line.split(": ", 1) for line in lines)
    assert (before, after) == ("original", "unlearned")
    assert original != unlearned
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?\n\nWhere?\n"))
    assert run("chat", saved["llava"], "--max-new-tokens", 3) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["original", "original"]


def test_inspect_reads_no_weights(saved, tmp_path, capsys):
    shutil.copytree(saved["qwen2_vl"], tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert run("inspect", tmp_path / "model", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (matrices,) = found["value_matrices"]
    assert matrices["template"] == "model.language_model.layers.*.mlp.down_proj"
    assert matrices["layers"] == list(range(found["layers"]))
    assert any("visual" in group for group in found["left_alone"])
    assert run("inspect", tmp_path / "model") == 0


def test_inspect_shows_experts(tmp_path, capsys):
    build_family("qwen3_5_moe").config.save_pretrained(tmp_path)
    assert run("inspect", tmp_path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 x 4 experts x model.language_model.layers.*.mlp.experts (24 -> 32)" in printed
    assert "4 x model.language_model.layers.*.mlp.shared_expert.down_proj (40 -> 32)" in printed


@pytest.mark.thorough
def test_inspect_finds_an_unknown_family_and_asks(people, saved, capsys, monkeypatch):
    monkeypatch.setattr("kvw.models.finding.FAMILIES", ())
    assert run("inspect", saved["llava"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    template = "model.language_model.layers.*.mlp.down_proj"
    assert "does not know this family" in printed
    assert f"--value-matrices '{template}'" in printed
    assert run("inspect", saved["llava"], "--value-matrices", template) == 0
    assert "does not know" not in capsys.readouterr().out
    assert erase(saved, "--value-matrices", template) == 0
    assert kvw.load_edit("run/edit.safetensors").metadata.value_matrices == template
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "again") == 0
    assert load_file("again/model.safetensors").keys() == load_file("run/model/model.safetensors").keys()
    assert_refused(capsys, run("inspect", saved["llava"], "--value-matrices", "lm_head"), "'lm_head'", template)


def test_inspect_refuses_when_two_places_could_be_meant(tmp_path, capsys, monkeypatch):
    AutoConfig.for_model("gemma4").save_pretrained(tmp_path)
    monkeypatch.setattr("kvw.models.finding.FAMILIES", ())
    assert_refused(
        capsys,
        run("inspect", tmp_path),
        "family 'gemma4'",
        "layers.*.mlp.down_proj",
        "layers.*.per_layer_projection",
        "choose one with --value-matrices",
    )


@pytest.mark.thorough
def test_a_dry_run_goes_through_every_stage_and_writes_nothing(people, saved, capsys):
    before = {path.name for path in people.iterdir()}
    assert erase(saved, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["examples"] == {"forget": 4, "retain": 7}
    stages = ["scoring the original model", "gathering what must stay", "weakening", "measuring the retain set"]
    assert list(plan["seconds"]) == [*stages, "choosing the strength", "scoring the unlearned model"]
    assert plan["seconds"]["gathering what must stay"] == 0  # it writes no English, so that nothing is asked
    assert erase(saved, "--dry-run", "--json", "--gamma", 1) == 0
    by_hand = json.loads(capsys.readouterr().out)["seconds"]
    assert "judging the edit" in by_hand
    assert "choosing the strength" not in by_hand
    assert {path.name for path in people.iterdir()} == before
    assert_refused(capsys, erase(saved, "--dry-run", "--layers", "0:40"), "0:40")


@pytest.mark.thorough
def test_a_dry_run_counts_what_the_model_is_asked_itself(people, saved, capsys, monkeypatch):
    given = ("--forget", "forget.jsonl", "--out", "run", "--max-new-tokens", 3, "--dry-run", "--json")
    assert_refused(capsys, run("erase", saved["llava"], *given), "Nothing says what must stay", "--retain FILE")
    monkeypatch.setattr("kvw.runs.plan.KNOWS_ENGLISH", float("inf"))  # as if the model wrote English
    plans = []
    for sources in ("text", "text,pictures"):
        assert run("erase", saved["llava"], *given, "--retain-sources", sources) == 0
        plans.append(json.loads(capsys.readouterr().out))
    words, pictures = (plan["seconds"]["gathering what must stay"] for plan in plans)
    assert words == 0 < pictures
    assert plans[0]["memory"]["null_tokens"] < plans[1]["memory"]["null_tokens"]


@pytest.mark.thorough
def test_a_dry_run_counts_every_series_of_edits(people, saved, capsys, monkeypatch):
    monkeypatch.setattr("kvw.runs.plan.timed", lambda work: (work() and 0.0) or 60.0)
    found = []
    for deep, thinning in ((5, 0), (4, 0), (4, 1000)):  # the model has 4 layers
        monkeypatch.setattr("kvw.runs.choosing.DEEP", deep)
        monkeypatch.setattr("kvw.selection.search.THINNING", thinning)
        given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "run", "--dry-run", "--json")
        assert run("erase", saved["llava"], *given) == 0
        found.append(json.loads(capsys.readouterr().out)["seconds"]["choosing the strength"])
    assert found[1] / found[0] == pytest.approx((1 + 40) / (1 + 20), rel=1e-3)
    # 4 forget questions are asked 40 times in each of two series; 4 forget and 7 retain questions judge.
    assert (found[2] - found[1]) / found[1] == pytest.approx(2 * 40 * 4 / ((1 + 40) * (4 + 7)), rel=1e-3)


@pytest.mark.thorough
def test_a_dry_run_counts_each_subject_by_itself(people, saved, capsys, monkeypatch):
    monkeypatch.setattr("kvw.runs.plan.timed", lambda work: (work() and 0.0) or 60.0)
    monkeypatch.setattr("kvw.selection.search.THINNING", 0)

    def named(name: str, *subjects: str) -> None:
        rows = [json.loads(line) for line in (people / f"{name}.jsonl").read_text().splitlines()]
        lines = [json.dumps({**row, "subject": subjects[place % len(subjects)]}) for place, row in enumerate(rows)]
        (people / f"{name}-named.jsonl").write_text("\n".join(lines) + "\n")

    named("retain", "Cleo")
    found = []
    for names in (("Ann",), ("Ann", "Bo")):
        named("forget", *names)
        given = (
            "--forget",
            "forget-named.jsonl",
            "--retain",
            "retain-named.jsonl",
            "--out",
            "run",
            "--dry-run",
            "--json",
        )
        assert run("erase", saved["llava"], *given) == 0
        found.append(json.loads(capsys.readouterr().out)["seconds"]["choosing the strength"])
    assert found[1] / found[0] == pytest.approx((1 + 20 + 2) / (1 + 20), rel=1e-3)


@pytest.mark.thorough
def test_the_ablation_needs_no_retain_set(people, saved):
    more = ("--forget", "forget.jsonl", "--out", "run", "--no-retain-contrast", "--max-new-tokens", 3)
    assert run("erase", saved["llava"], "--method", "kvw", *more) == 0
    record = json.loads((people / "run" / "run.json").read_text())
    assert (record["retain"], record["selection"]) == (None, None)
    for words in ("There is nothing to judge the edit by", "0% of them are its first choice word by word"):
        assert any(words in warning for warning in record["warnings"])


@pytest.mark.thorough
def test_one_shot_and_parity_go_through_the_program(people, saved):
    assert erase(saved, "--schedule", "one-shot", "--gamma", 0.5, out="one-shot") == 0
    assert json.loads((people / "one-shot" / "run.json").read_text())["settings"]["steps"] == 4
    assert erase(saved, "--parity", "--gamma", 0.5, out="parity") == 0
    assert kvw.load_edit(people / "parity" / "edit.safetensors").kind == "rounded gates"


@pytest.mark.thorough
def test_forget_examples_in_the_retain_set_are_left_out(people, saved, capsys):
    with (people / "retain.jsonl").open("a") as file:
        file.write("\n".join((people / "forget.jsonl").read_text().splitlines()[:2]) + "\n")
    assert erase(saved) == 0
    assert "2 of 9 retain examples are left out: 2 that the forget set holds too" in capsys.readouterr().err
    record = json.loads((people / "run" / "run.json").read_text())
    assert (record["retain"]["count"], record["retain"]["left_out_identical"]) == (7, 2)
    assert not any("left out" in warning for warning in record["warnings"])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["forget.jsonl"]),
        ("", ["forget.jsonl", "no examples"]),
        ('{"question": "a", "answer": "b"}\n{"question": ', ["forget.jsonl", "2"]),
        ('{"question": "Who?"}\n', ["forget.jsonl:1", "answer"]),
        ('{"question": "Who?", "answer": " "}\n', ["forget.jsonl:1", "answer", "empty"]),
        (
            '{"question": "Who?", "answer": "x", "image": "no.png", "id": ":7: [bold]"}\n',
            [":7: [bold]", "no.png"],
        ),
        ('{"question": "Who?", "answer": "x", "image": "broken.png", "id": ":eight:"}\n', [":eight:", "broken.png"]),
        ('{"question": "Who?", "answer": "an <image> of x"}\n', ["forget.jsonl:1", "<image>"]),
    ],
    ids=["missing", "empty", "not JSON", "no answer", "empty answer", "no image", "broken image", "placeholder"],
)
def test_unusable_forget_files(people, saved, capsys, content, words):
    (people / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (people / "forget.jsonl").unlink()
    if content is not None:
        (people / "forget.jsonl").write_text(content)
    assert_refused(capsys, erase(saved), *words)
    assert not (people / "run").exists()


@pytest.mark.thorough
def test_an_answer_that_the_template_drops(people, saved, tmp_path, capsys):
    shutil.copytree(saved["llava"], tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text("{% for message in messages %}USER: hello{% endfor %}")
    common = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "run")
    assert_refused(capsys, run("erase", tmp_path / "model", *common), "forget.jsonl:1")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--gamma", "0"], ["gamma", "above 0"]),
        (["--gamma", "nan"], ["gamma", "above 0"]),
        (["--gamma", "-1"], ["gamma", "above 0"]),
        (["--gamma", "strong"], ["gamma"]),
        (["--layers", "2:40"], ["2:40", "layers 0 to 3"]),
        (["--layers", "2"], ["FIRST:LAST"]),
        (["--layers", "3:1"], ["3:1"]),
        (["--layers", "1:\N{SUPERSCRIPT TWO}"], ["FIRST:LAST"]),
        (["--eval-limit", "-5"], ["at least 0"]),
        (["--out", "forget.jsonl/run"], ["could not be written"]),
        (["--out", "."], ["which this run reads"]),
        (["--eval", "photos"], ["NAME=FILE"]),
        (["--eval", "a=retain.jsonl", "--eval", "a=forget.jsonl"], ["'a'"]),
        (["--eval", "retain=retain.jsonl"], ["'retain'"]),
        (["--eval", "a=nowhere.jsonl"], ["nowhere.jsonl"]),
        (["--update-every", "0"], ["update_every"]),
        (["--max-new-tokens", "0"], ["max-new-tokens"]),
        (["--method", "magic"], ["magic"]),
        (["--nonsense"], ["--nonsense"]),
    ],
    ids=str,
)
def test_unusable_options(people, saved, capsys, more, words):
    assert_refused(capsys, erase(saved, *more), *words)
    assert not (people / "run").exists()


@pytest.mark.thorough
def test_an_output_directory_that_holds_something(people, saved, capsys, erased_once):
    (people / "run").mkdir()
    (people / "run" / "thesis.txt").write_text("precious")
    assert_refused(capsys, erase(saved), "not empty", "thesis.txt", "--force")
    assert_refused(capsys, erase(saved, "--force"), "does not carry kvw's mark", "thesis.txt")
    assert (people / "run" / "thesis.txt").read_text() == "precious"
    shutil.rmtree(people / "run")
    shutil.copytree(erased_once, people / "run")
    first = (people / "run" / "run.json").read_text()
    assert erase(saved, "--force") == 0
    assert (people / "run" / "run.json").read_text() != first
    (people / "run" / "model" / "thesis.txt").write_text("precious")
    assert_refused(capsys, erase(saved, "--force"), "did not write", "model/thesis.txt")
    assert sorted(path.name for path in people.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("split", ["forget", "retain", "eval"])
def test_force_never_replaces_the_pictures_that_a_file_names(people, saved, capsys, split, linked):
    """A folder of photos with kvw's own mark in it, and with nothing but photos that kvw would have written."""
    (people / "photos").mkdir()
    Image.new("RGB", (24, 20)).save(people / "photos" / "one.png")
    write_mark(people / "photos", "run")
    name = "photos/one.png"
    if linked:
        (people / "link.png").symlink_to(people / name)
        name = "link.png"
    row = {"question": "Who is here?", "answer": "Somebody", "image": name}
    (people / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    more = ("--eval", "more=eval.jsonl") if split == "eval" else ()
    assert_refused(capsys, erase(saved, "--force", *more, out="photos"), "which this run reads", name)
    assert (people / "photos" / "one.png").is_file()
    assert sorted(path.name for path in people.iterdir() if path.name.startswith(".")) == []


def test_force_never_replaces_what_the_run_reads(people, saved, capsys):
    shutil.copytree(saved["llava"], people / "model")
    common = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--force")
    for out in ("model", "."):
        assert_refused(capsys, run("erase", "model", *common, "--out", out), "which this run reads")
    assert (people / "model" / "model.safetensors").is_file()


@pytest.mark.thorough
def test_names_with_brackets_and_arrows_survive_any_terminal(people, saved, monkeypatch):
    (people / "a[b].jsonl").write_text((people / "forget.jsonl").read_text())
    arguments = ["erase", str(saved["llava"]), "--forget", "a[b].jsonl", "--retain", "retain.jsonl"]
    arguments += ["--out", "run[red]", "--eval", "[/x]=retain.jsonl", "--max-new-tokens", "2", "--write-damaged"]
    with monkeypatch.context() as patched:
        for name in ("stdout", "stderr"):
            patched.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert run(*arguments) == 0
        sys.stdout.flush()
        shown = sys.stdout.buffer.getvalue().decode("ascii")
    assert "run[red]" in shown
    assert "[/x]" in shown
    assert "?" in shown  # the arrows that this terminal does not have


@pytest.mark.thorough
def test_a_damaged_picture_is_found_before_the_first_forward(people, saved, capsys):
    content = (people / "retain-1.png").read_bytes()
    (people / "retain-1.png").write_bytes(content[:50])
    code = erase(saved)
    error = capsys.readouterr().err
    assert code == 2
    assert "retain.jsonl:2" in error
    assert "scoring" not in error


@pytest.mark.thorough
def test_records_hold_no_path_of_this_machine(people, saved):
    content = (people / "retain-1.png").read_bytes()
    (people / "broken").mkdir()
    (people / "broken" / "retain-1.png").write_bytes(content[:50])
    (people / "broken" / "bad.jsonl").write_text((people / "retain.jsonl").read_text().splitlines()[1])
    assert erase(saved, "--eval", f"bad={people / 'broken' / 'bad.jsonl'}") == 0
    for name in ("run.json", "samples.jsonl", "edit.safetensors"):
        assert str(people).encode() not in (people / "run" / name).read_bytes(), name
    assert json.loads((people / "run" / "run.json").read_text())["splits"]["bad"]["unlearned"]["failed"] == 1


@pytest.mark.thorough
def test_a_full_disk_while_the_model_is_saved(erased, saved, capsys, monkeypatch):
    people = erased
    before = (people / "run" / "run.json").read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kvw.models.patching._patch", full)
    kept = people / "run.kept"
    assert_refused(
        capsys,
        erase(saved, "--force"),
        "disk is full",
        "untouched",
        str(kept),
        "kvw apply",
        "confidential",
    )
    assert (people / "run" / "run.json").read_text() == before
    assert sorted(path.name for path in people.iterdir() if path.name.startswith(".")) == []
    assert sorted(path.name for path in kept.iterdir()) == [".kvw", "edit.safetensors", "run.json", "samples.jsonl"]
    assert json.loads((kept / "run.json").read_text())["settings"]["gamma"] == 1
    monkeypatch.undo()
    monkeypatch.chdir(people)
    assert run("apply", kept / "edit.safetensors", saved["llava"], "--out", "run-model") == 0
    written = [people / place / "model.safetensors" for place in ("run-model", "run/model")]
    assert written[0].read_bytes() == written[1].read_bytes()


@pytest.mark.parametrize(
    "where",
    ["check_reload", *(pytest.param(name, marks=pytest.mark.slow) for name in ("write_card", "_save", "check_saved"))],
)
@pytest.mark.parametrize("error", [UserError("broken"), ValueError("a bug"), KeyboardInterrupt()])
@pytest.mark.thorough
def test_whatever_fails_after_the_passes_keeps_what_they_gave(people, saved, capsys, monkeypatch, where, error):
    monkeypatch.setattr(f"kvw.runs.erase.{where}", lambda *_, **__: (_ for _ in ()).throw(error))
    with contextlib.suppress(ValueError):
        assert erase(saved) == (2 if isinstance(error, UserError) else 130)
    said = capsys.readouterr().err.replace("\n", "")
    assert str(people / "run.kept") in said
    assert "kvw apply" in said
    assert not (people / "run").exists()
    assert sorted(path.name for path in people.iterdir() if path.name.startswith(".")) == []
    assert len((people / "run.kept" / "samples.jsonl").read_text().splitlines()) == 11


@pytest.mark.thorough
def test_a_full_disk_is_found_before_the_passes_without_a_model_too(people, saved, capsys, monkeypatch):
    plain = shutil.disk_usage(people)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: plain._replace(free=2**20))
    for more in ((), ("--dry-run",)):
        assert_refused(capsys, erase(saved, "--no-model", *more), "no room for the edit and the samples")


@pytest.mark.thorough
def test_two_runs_into_one_folder(people, saved, capsys):
    with claimed(people / "run"):
        assert_refused(capsys, erase(saved), "Another process is writing")
    assert erase(saved) == 0


@pytest.mark.parametrize("name", [pytest.param("r" * 250, marks=pytest.mark.slow), "r" * 255])
@pytest.mark.thorough
def test_a_long_name_of_the_output(people, saved, name):
    assert erase(saved, out=name) == 0
    assert erase(saved, "--force", out=name) == 0
    assert sorted(path.name for path in people.iterdir() if path.is_dir()) == [name]


@pytest.mark.thorough
def test_runs_are_confidential_and_models_have_the_modes_of_their_source(people, saved):
    def modes(folder):
        return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}

    shutil.copytree(saved["llava"], people / "model")
    (people / "model" / "README.md").write_text("theirs")
    for number, path in enumerate(sorted((people / "model").iterdir())):
        path.chmod((0o640, 0o444, 0o604)[number % 3])
    given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--max-new-tokens", 3, "--write-damaged")
    assert run("erase", "model", *given, "--out", "run") == 0
    assert stat.S_IMODE((people / "run").stat().st_mode) == 0o700
    found = modes(people / "run")
    assert {name: mode for name, mode in found.items() if not name.startswith("model")} == dict.fromkeys(
        [".kvw", "edit.safetensors", "run.json", "samples.jsonl", "report.html", "evidence.json"], 0o600
    )
    source, written = modes(people / "model"), modes(people / "run" / "model")
    assert {name: written[name] for name in source} == source
    assert run("apply", "run/edit.safetensors", "model", "--out", "applied") == 0
    assert {name: mode for name, mode in modes(people / "applied").items() if name in source} == source
    for place in Path(os.environ["KVW_CACHE"]).rglob("*"):
        assert stat.S_IMODE(place.stat().st_mode) == (0o700 if place.is_dir() else 0o600), place


@pytest.mark.thorough
def test_apply_never_replaces_the_edit_that_it_writes(erased, saved, capsys):
    assert_refused(
        capsys, run("apply", "run/edit.safetensors", saved["llava"], "--out", "run", "--force"), "which this run reads"
    )
    assert (erased / "run" / "edit.safetensors").is_file()


@pytest.mark.thorough
def test_models_that_cannot_be_used(people, saved, tmp_path, capsys, monkeypatch):
    common = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "run")
    assert_refused(capsys, run("erase", "no/where", *common), "no/where", "owner/name@revision")
    shutil.copytree(saved["llava"], tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, tmp_path / "nan" / "model.safetensors", {"format": "pt"})
    assert_refused(capsys, run("erase", tmp_path / "nan", *common), "NaN")
    monkeypatch.setattr("kvw.models.finding.FAMILIES", ())
    assert_refused(capsys, run("erase", saved["llava"], *common), "family 'llava'", "--value-matrices", "mlp.down_proj")
    assert not (people / "run").exists()


@pytest.mark.thorough
def test_an_edit_of_other_weights_is_noticed(erased, saved, tmp_path, capsys):
    shutil.copytree(saved["llava"], tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    assert_refused(capsys, run("apply", "run/edit.safetensors", tmp_path / "other", "--out", "model"), "other weights")
    command = ("apply", "run/edit.safetensors", tmp_path / "other", "--out", "model", "--other-weights")
    assert run(*command) == 0
    assert "other weights" in capsys.readouterr().err
    assert_refused(capsys, run("apply", "run/edit.safetensors", saved["qwen2_vl"], "--out", "x"), "does not fit")
    assert_refused(capsys, run("apply", "nowhere.safetensors", saved["llava"], "--out", "x"), "no edit file")
