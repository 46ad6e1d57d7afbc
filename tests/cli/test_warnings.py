"""Warnings: the same on the terminal and in ``run.json``, true, and under ``--strict`` an exit code."""

from __future__ import annotations

import json
import logging
import warnings

import pytest
from PIL import Image
from tests.program import run

from kvw.quiet import quiet_libraries
from kvw.records.run import Change, LanguagePart

DAMAGE = "The perplexity of ordinary sentences went from 29.0 to 2.16e+04."


@pytest.fixture
def people(tmp_path, monkeypatch):
    """Two people to forget and four to keep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "10000")  # no line is broken
    for name, count in (("forget", 2), ("retain", 4)):
        rows = []
        for person in range(count):
            image = f"{name}-{person}.png"
            Image.new("RGB", (24, 20), (60 * person, 90, 40)).save(tmp_path / image)
            rows.append({"question": "Who is this?", "answer": f"{name.title()} {person}", "image": image})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def erase(saved, *more, out="run"):
    given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", out, "--max-new-tokens", 2)
    # Random weights lose by chance what they never knew: the guard has tests of its own, and so has the strength.
    strength = () if "--method" in more else ("--strength", 1)
    return run("erase", saved["llava"], *given, "--write-damaged", *strength, *more)


def warned(text):
    return [line.removeprefix("warning ") for line in text.splitlines() if line.startswith("warning ")]


@pytest.mark.thorough
def test_the_record_holds_what_the_terminal_showed_and_the_table_repeats_it(people, saved, capsys):
    assert erase(saved, "--method", "kvw", "--gamma", "0.001") == 0
    shown = capsys.readouterr()
    record = json.loads((people / "run/run.json").read_text())
    assert any("forget answers before any edit" in warning for warning in record["warnings"])  # random weights
    assert warned(shown.err) == record["warnings"] == warned(shown.out)
    assert "it answers" in shown.err
    assert "it answers" not in (people / "run/run.json").read_text()
    for name in ("run.json", "model/README.md"):
        text = (people / "run" / name).read_text()
        assert "Forget 0" not in text
        assert "Who is this" not in text
    assert "Perplexity of ordinary sentences" in (people / "run/model/README.md").read_text()
    assert "Perplexity of ordinary sentences" in shown.out
    assert record["language"]["perplexity"]["original"] > 1


@pytest.mark.thorough
def test_what_modules_log_is_a_warning_like_others(people, saved, capsys, monkeypatch):
    def tell_kept(journal, reporter):
        logging.getLogger("kvw.evaluation.journal").warning("answers could not be kept for the next run: %s", "full")

    monkeypatch.setattr("kvw.runs.erase.tell_kept", tell_kept)
    assert erase(saved, "--no-model") == 0
    record = json.loads((people / "run/run.json").read_text())
    assert "Answers could not be kept for the next run: full" in record["warnings"]
    assert warned(capsys.readouterr().err) == record["warnings"]


@pytest.mark.parametrize(("subject", "counted"), [(None, "forget examples"), ("person", "forget subjects")])
@pytest.mark.thorough
def test_questions_are_not_counted_as_people(people, saved, monkeypatch, subject, counted):
    for name in ("forget", "retain"):
        rows = [json.loads(line) for line in (people / f"{name}.jsonl").read_text().splitlines()]
        named = [row | ({"subject": f"{subject} {row['answer']}"} if subject else {}) for row in rows]
        (people / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    heard = []
    monkeypatch.setattr(
        "kvw.methods.subspace.solution.separation_warnings", lambda found, what: heard.append(what) or []
    )
    assert erase(saved, "--no-model") == 0
    assert heard == [counted]


@pytest.mark.thorough
def test_strict_is_an_exit_code_and_everything_is_written(people, saved):
    assert erase(saved, "--strict") == 4
    assert {path.name for path in (people / "run").iterdir()} >= {"edit.safetensors", "run.json", "model"}
    assert erase(saved, "--strict", "--dry-run", out="dry") == 4  # four retain examples are few


@pytest.mark.thorough
def test_apply_looks_at_the_language_of_what_it_has_written(people, saved, capsys, monkeypatch):
    assert erase(saved, "--no-model") == 0
    capsys.readouterr()
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "fine", "--strict") == 0
    assert "Perplexity of ordinary sentences" in capsys.readouterr().out
    assert "Perplexity of ordinary sentences" in (people / "fine/README.md").read_text()

    seen = []

    def compare_written(source, folder, reporter):
        seen.append(sorted(path.name for path in folder.iterdir()))
        change = Change(original=29.0, unlearned=21600.0)
        return LanguagePart(perplexity=change, broken=Change(original=0, unlearned=0), damage=[DAMAGE])

    monkeypatch.setattr("kvw.runs.apply.compare_written", compare_written)
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "damaged", "--strict") == 4
    shown = capsys.readouterr()
    assert warned(shown.err) == warned(shown.out) == [DAMAGE]
    assert f"**Warning:** {DAMAGE}" in (people / "damaged/README.md").read_text()
    # Heard before it is in its place: all that is loaded is there, and only the mark of what kvw wrote comes later.
    assert seen == [sorted(path.name for path in (people / "damaged").iterdir() if path.name != ".kvw")]
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "lenient") == 0
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "unseen", "--strict", "--no-check") == 0
    assert len(seen) == 2
    assert "Perplexity of ordinary sentences" in (people / "unseen/README.md").read_text()  # as its run has seen it
    (people / "alone.safetensors").write_bytes((people / "run/edit.safetensors").read_bytes())
    assert run("apply", "alone.safetensors", saved["llava"], "--out", "unheard", "--no-check") == 0
    assert len(seen) == 2
    assert "was not looked at" in (people / "unheard/README.md").read_text()


@pytest.mark.thorough
def test_a_good_edit_is_not_flagged_and_a_wreck_is(world, tmp_path, capsys):
    given = ["--eval-limit", 20, "--max-new-tokens", 16, "--strict"]
    (tmp_path / "images").symlink_to(world / "images")
    retain = tmp_path / "retain.jsonl"
    retain.write_text("".join((world / "retain.jsonl").read_text().splitlines(keepends=True)[::3]))
    rows = (world / "forget.jsonl").read_text().splitlines()
    somebody = [row for row in rows if json.loads(row)["subject"] == json.loads(rows[0])["subject"]]
    (tmp_path / "one.jsonl").write_text("\n".join(somebody) + "\n")
    (tmp_path / "all.jsonl").write_text("\n".join(rows[:60]) + "\n")
    # One person is forgotten to the last question within what must stay, which four are not on this model.
    good = ["--strength", "auto", "--set", "mu=16", "--set", "matrices=both", "--keep", "0.7", *given]
    good += ["--forget", tmp_path / "one.jsonl", "--retain", retain, "--out", tmp_path / "good"]
    assert run("erase", "toy:vanilla", *good) == 4
    # No answer begins right any more. This model has no language to answer with instead.
    (broken,) = json.loads((tmp_path / "good/run.json").read_text())["warnings"]
    assert "4 of 20 replies to forget questions are gibberish or end in a loop" in broken
    wreck = ["--method", "kvw", "--no-retain-contrast", "--schedule", "one-shot", "--layers", "0:5", "--gamma", 20]
    wreck += ["--forget", tmp_path / "all.jsonl", "--write-damaged"]
    capsys.readouterr()
    code = run("erase", "toy:vanilla", *given, *wreck, "--eval", f"retain={retain}", "--out", tmp_path / "wreck")
    record = json.loads((tmp_path / "wreck/run.json").read_text())
    assert code == 4
    assert any("The retain set is lost, too" in damage for damage in record["language"]["damage"])
    assert set(record["language"]["damage"]) <= set(record["warnings"])


def test_what_libraries_tell_their_own_developers_is_not_shown():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_libraries()
        for module in ("transformers.modeling_utils", "peft.peft_model", "kvw.files"):
            warnings.warn_explicit(f"{module} is old", FutureWarning, "x.py", 1, module=module)
    assert [str(one.message) for one in caught] == ["kvw.files is old"]
