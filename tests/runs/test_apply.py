"""``kvw apply`` from a checkpoint to a folder: right, resumed, reported, and small in memory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tests.checkpoints import gate_edit, sharded, tensor_bytes
from tests.runs.applying import kill_often, watch_memory
from tests.several_processes import run_alone

import kvw
from kvw.claim import new_directory, partial_path
from kvw.cli import main
from kvw.errors import UserError
from kvw.evaluation.records import Summary
from kvw.files import write_text
from kvw.measuring.fingerprint import digest as fingerprint_digest
from kvw.measuring.fingerprint import example_digest, examples_digest, remembered_digest, weights_digest
from kvw.measuring.salt import salted
from kvw.models import patching
from kvw.models.loading import Checkpoint, find_checkpoint, load_model
from kvw.partial import resumable_directory
from kvw.progress import SILENT, Silent
from kvw.records.run import AnswersPart, AskedPart, LanguagePart, RunRecord, SplitPart
from kvw.runs import apply as module
from kvw.runs.apply import apply, record_beside
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest

pytestmark = pytest.mark.thorough

SHARDS = 4
LAYERS = 4


class Listening(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.notes, self.warnings = [], []

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture
def checkpoint(tmp_path):
    return sharded(tmp_path / "model", shards=SHARDS, hidden=64, width=96, layers=LAYERS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def made_on(checkpoint, *layers, fingerprint=""):
    edit = gate_edit(checkpoint, *layers)
    edit.metadata = edit.metadata.model_copy(update={"model_fingerprint": fingerprint})
    return edit


def copied(monkeypatch):
    """The names of the files that are copied from now on."""
    plain, begun = patching._copy, []

    def copy(path, *arguments):
        begun.append(path.name)
        return plain(path, *arguments)

    monkeypatch.setattr(patching, "_copy", copy)
    return begun


def interrupted(after, *arguments, **options):
    """A run with Ctrl-C when another file is to be copied after so many."""
    plain, begun = patching._copy, []

    def copy(path, *more):
        if len(begun) == after:
            raise KeyboardInterrupt
        begun.append(path.name)
        return plain(path, *more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patching, "_copy", copy)
        with pytest.raises(KeyboardInterrupt):
            apply(*arguments, **options)


def test_the_model_is_what_folding_gives(saved, tmp_path):
    checkpoint = find_checkpoint(str(saved["llava"]))
    edit = gate_edit(checkpoint, 1, 2)
    applied = apply(edit, checkpoint, tmp_path / "out", SILENT)
    model = load_model(checkpoint)
    edit.fold(model)
    again = load_model(find_checkpoint(str(tmp_path / "out"))).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert [file.changed for file in applied.files] == [2]
    assert applied.copied_bytes == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert names(tmp_path) == ["out"]


def test_the_readme_is_the_one_file_that_differs(checkpoint, tmp_path):
    (checkpoint.folder / "README.md").write_text("---\nlicense: mit\n---\n# Theirs\n")
    apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", SILENT)
    differing = {
        path.name
        for path in checkpoint.folder.iterdir()
        if path.suffix != ".safetensors" and path.read_bytes() != (tmp_path / "out" / path.name).read_bytes()
    }
    assert differing == {"README.md"}
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "mit"
    assert "# Theirs" in card.text
    assert "weights of `model` with kvw" in card.text
    again = Checkpoint(tmp_path / "out", "owner/edited", "abc")
    apply(gate_edit(checkpoint, 2), again, tmp_path / "twice", SILENT)
    card = ModelCard.load(tmp_path / "twice" / "README.md")
    assert card.text.count("## What was removed from this model") == 2
    assert card.data.base_model == "owner/edited"


def test_an_interrupted_run_goes_on_where_it_stopped(checkpoint, tmp_path, monkeypatch):
    edit, said = gate_edit(checkpoint, 1, 2), Listening()
    interrupted(3, edit, checkpoint, tmp_path / "out", said)
    assert str(partial_path(tmp_path / "out")) in said.notes[-1]
    assert names(tmp_path) == [".out.kvw-partial", "model"]
    content = partial_path(tmp_path / "out") / "content"
    finished = {path.name: path.stat() for path in sorted(content.glob("*.safetensors"))[:2]}

    with monkeypatch.context() as patched:
        begun = copied(patched)
        applied = apply(edit, checkpoint, tmp_path / "out", said)
    assert len(begun) == SHARDS - 2
    assert said.notes[-1] == "Went on with an interrupted run: 2 weight files were finished already."
    for name, before in finished.items():
        after = (tmp_path / "out" / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert applied.copied_bytes == sum((tmp_path / "out" / name).stat().st_size for name in begun)
    apply(edit, checkpoint, tmp_path / "whole", SILENT)
    assert tensor_bytes(tmp_path / "out") == tensor_bytes(tmp_path / "whole")
    assert names(tmp_path) == ["model", "out", "whole"]


@pytest.mark.parametrize("part", ["edit", "checkpoint", "untouched"])
def test_another_run_never_takes_over_what_was_begun(checkpoint, tmp_path, part):
    interrupted(3, gate_edit(checkpoint, 1, 2), checkpoint, tmp_path / "out", SILENT)
    edit, said = gate_edit(checkpoint, 1, 2, seed=1 if part == "edit" else 0), Listening()
    way = "hardlink" if part == "untouched" else "copy"
    if part == "checkpoint":
        path = sorted(checkpoint.folder.glob("*.safetensors"))[-1]
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    apply(edit, checkpoint, tmp_path / "out", said, untouched=way)
    assert part in said.notes[0].partition("different: ")[2]
    assert "starting over" in said.notes[0]
    apply(edit, checkpoint, tmp_path / "whole", SILENT)
    assert tensor_bytes(tmp_path / "out") == tensor_bytes(tmp_path / "whole")


def test_hard_links_go_on_too(checkpoint, tmp_path, monkeypatch):
    """Linking changes the change time of the source's files, which is no reason to start over."""
    edit, said = gate_edit(checkpoint, 0, 3), Listening()
    with monkeypatch.context() as patched:
        patched.setattr(module, "check_reload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            apply(edit, checkpoint, tmp_path / "out", said, untouched="hardlink")
    applied = apply(edit, checkpoint, tmp_path / "out", said, untouched="hardlink")
    assert said.notes == ["Went on with an interrupted run: 2 weight files were finished already."]
    assert applied.copied_bytes == 0
    for file in applied.files:
        assert (tmp_path / "out" / file.name).samefile(checkpoint.folder / file.name) == (file.changed == 0)
    assert all(remembered_digest(checkpoint.folder / file.name) for file in applied.files)


def test_nothing_to_link_is_said(saved, tmp_path):
    said = Listening()
    checkpoint = find_checkpoint(str(saved["llava"]))
    applied = apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", said, untouched="hardlink")
    assert said.notes == ["Every weight file holds an edited value matrix, so there is nothing to hardlink."]
    assert [file.way for file in applied.files] == ["copy"]


def test_two_at_the_same_time(checkpoint, tmp_path):
    edit = gate_edit(checkpoint, 1)
    with resumable_directory(tmp_path / "out", {"edit": "of another process"}) as partial:
        (partial.folder / "theirs").write_text("x")
        with pytest.raises(UserError, match="Another process is writing"):
            apply(edit, checkpoint, tmp_path / "out", SILENT)
        assert names(partial.folder) == ["theirs"]
    assert names(tmp_path / "out") == [".kvw", "theirs"]


def test_damage_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    plain = os.fsync

    def damaging(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.name == "model-00003-of-00004.safetensors":
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 8
            path.write_bytes(content)
        plain(handle)

    monkeypatch.setattr(os, "fsync", damaging)
    with pytest.raises(UserError, match=r"model-00003-of-00004\.safetensors does not read back as it was written"):
        apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", SILENT)
    assert names(tmp_path) == ["model"]


def test_a_disk_that_fills_up_leaves_what_was_there(checkpoint, tmp_path, monkeypatch):
    with new_directory(tmp_path / "out") as folder:
        write_text(folder / "old", "old")
    with pytest.raises(UserError, match="not empty"):
        apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", SILENT)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(patching, "_copy", full)
    with pytest.raises(UserError, match="disk is full"):
        apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", SILENT, force=True)
    assert (tmp_path / "out" / "old").read_text() == "old"
    assert names(tmp_path) == ["model", "out"]


def test_only_what_is_still_to_be_written_needs_room(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("kvw.models.saving.DISK_RESERVE", 0)
    edit, out = gate_edit(checkpoint, 0), tmp_path / "out"
    sizes = [path.stat().st_size for path in sorted(checkpoint.folder.glob("*.safetensors"))]
    usage = shutil.disk_usage(tmp_path)

    def room(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size))

    room(sum(sizes) - 1)
    with pytest.raises(UserError, match="no room"):
        apply(edit, checkpoint, out, SILENT)
    room(sum(sizes))
    interrupted(2, edit, checkpoint, out, SILENT)
    room(sum(sizes[1:]) - 1)
    with pytest.raises(UserError, match="no room"):
        apply(edit, checkpoint, out, SILENT)
    room(sum(sizes[1:]))
    apply(edit, checkpoint, out, SILENT)
    room(max(sizes) * 2)
    assert max(sizes) * 2 < sum(sizes)
    apply(edit, checkpoint, tmp_path / "linked", SILENT, untouched="hardlink")


def test_damaged_weights_are_a_message(checkpoint, tmp_path):
    path = sorted(checkpoint.folder.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="could not be read"):
        apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", SILENT)


def test_the_files_of_the_checkpoint_are_never_replaced(checkpoint, tmp_path):
    (tmp_path / "blobs").mkdir()
    path = sorted(checkpoint.folder.glob("*.safetensors"))[0]
    path.rename(tmp_path / "blobs" / "0123")
    path.symlink_to(tmp_path / "blobs" / "0123")
    with pytest.raises(UserError, match="which this run reads"):
        apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "blobs", SILENT, force=True)
    assert names(tmp_path / "blobs") == ["0123"]


def test_other_weights_are_refused_before_anything_is_written(checkpoint, tmp_path, monkeypatch):
    out, other = tmp_path / "out", made_on(checkpoint, 1, fingerprint="0" * 64)
    digest = weights_digest(checkpoint.folder)
    with pytest.raises(UserError, match="made on other weights") as caught:
        apply(other, checkpoint, out, SILENT)
    for words in (digest[:12], "0" * 12, "the edit in them already", "--other-weights"):
        assert words in str(caught.value)
    assert names(tmp_path) == ["model"]
    said = Listening()
    damage = "The perplexity went through the roof."
    language = LanguagePart(perplexity=None, broken=None, damage=[damage])
    asked = AskedPart(keep=0.98, retain=True, sources=[], neighbours=False, write_damaged=False)
    record = RunRecord.model_construct(splits={"forget": split()}, selection=None, language=language, asked=asked)
    apply(other, checkpoint, out, said, record=record, other_weights=True)
    assert "with other weights" in said.warnings[0]
    card = (out / "README.md").read_text()
    assert damage not in card
    assert "Not known: the edit was made on other weights" in card
    assert "0.987" not in card
    assert f"weights that it was written into: `{digest}`" in card
    assert "--out model --other-weights" in card
    assert "weights of `model`" in card  # and not of the model that the edit was made on

    said = Listening()
    right = made_on(checkpoint, 1, fingerprint=digest)
    apply(right, checkpoint, tmp_path / "right", said, record=record)
    assert said.warnings == [f"The run that made the edit found: {damage}"]
    card = (tmp_path / "right" / "README.md").read_text()
    assert "0.987" in card
    assert f"**Warning:** {damage}" in card
    # What is found when the written model is looked at comes before it.
    found = LanguagePart(perplexity=None, broken=None, damage=["It says nothing any more."])
    monkeypatch.setattr("kvw.runs.apply.compare_written", lambda *_: found)
    told = apply(right, checkpoint, tmp_path / "heard", said, record=record, listen=True).language
    assert told is not None
    assert told.damage == [*found.damage, damage]
    card = (tmp_path / "heard" / "README.md").read_text()
    assert card.index(f"**Warning:** {found.damage[0]}") < card.index(f"**Warning:** {damage}")


def test_a_model_is_heard_before_it_is_in_its_place(checkpoint, tmp_path, monkeypatch):
    """What is killed while it listens leaves no model whose card is not whole."""
    seen = []

    def stopped(source, folder, reporter):
        seen.append((folder / "README.md").is_file())
        raise KeyboardInterrupt

    monkeypatch.setattr("kvw.runs.apply.compare_written", stopped)
    with pytest.raises(KeyboardInterrupt):
        apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", SILENT, listen=True)
    assert seen == [True]
    assert not (tmp_path / "out").exists()
    found = LanguagePart(perplexity=None, broken=None)
    monkeypatch.setattr("kvw.runs.apply.compare_written", lambda *_: found)
    assert apply(gate_edit(checkpoint, 1), checkpoint, tmp_path / "out", SILENT, listen=True).language == found
    assert names(tmp_path) == ["model", "out"]


def test_the_same_edit_is_not_written_twice(checkpoint, tmp_path):
    edit = made_on(checkpoint, 1, fingerprint=weights_digest(checkpoint.folder))
    apply(edit, checkpoint, tmp_path / "once", SILENT)
    with pytest.raises(UserError, match="made on other weights"):
        apply(edit, find_checkpoint(str(tmp_path / "once")), tmp_path / "twice", SILENT)
    assert not (tmp_path / "twice").exists()


def test_an_edit_that_does_nothing_is_not_written(checkpoint, tmp_path):
    with pytest.raises(UserError, match="does nothing"):
        apply(kvw.scale(gate_edit(checkpoint, 1), 0), checkpoint, tmp_path / "out", SILENT)
    assert names(tmp_path) == ["model"]


def test_weights_are_hashed_on_the_way_and_remembered(checkpoint, tmp_path):
    said = Listening()
    apply(made_on(checkpoint, 1), checkpoint, tmp_path / "out", said)
    assert "does not say which weights it was made on" in said.warnings[0]
    assert all(remembered_digest(path) for path in checkpoint.folder.glob("*.safetensors"))


def split():
    numbers = dict.fromkeys(("exact", "substring", "rouge_l_f", "rouge_l_recall", "probability"), 0.987)
    summary = Summary(count=5, failed=0, **numbers)
    answers = AnswersPart(original={}, unlearned={}, lost=0, gained=0)
    counts = {"of": 9, "pictures": 0, "subjects": 0}
    return SplitPart(file="f.jsonl", **counts, digest="d", answers=answers, original=summary, unlearned=summary)


def erased(saved, folder):
    rows = [{"question": f"Who is {name}?", "answer": f"{name} the florist"} for name in ("Zarathea", "Quillon")]
    (folder / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "retain.jsonl").write_text(json.dumps({"question": "What is this?", "answer": "A house"}))
    request = EraseRequest(
        model=find_checkpoint(str(saved["llava"])),
        forget=folder / "forget.jsonl",
        retain=folder / "retain.jsonl",
        out=folder / "run",
        method="kvw",
        max_new_tokens=2,
        write_damaged=True,  # random weights lose by chance what they never knew
    )
    return rows, erase(request)


def test_the_card_has_the_scores_of_the_run_and_nothing_of_the_data(saved, tmp_path):
    rows, record = erased(saved, tmp_path)
    edit_file = tmp_path / "run" / "edit.safetensors"
    edit, said = kvw.load_edit(edit_file), Listening()
    beside = record_beside(edit_file, edit, said)
    parts = ("splits", "selection", "language")
    assert all(getattr(beside, part) == getattr(record, part) for part in parts)
    assert beside.selection.sentence in (tmp_path / "run/model/README.md").read_text()
    apply(edit, find_checkpoint(str(saved["llava"])), tmp_path / "out", said, record=beside)
    one, two = ((tmp_path / name / "README.md").read_text() for name in ("run/model", "out"))
    assert one == two
    assert edit.metadata.forget_digest in one
    for row in rows:
        for text in (row["question"], row["answer"], row["answer"].split()[0]):
            assert text not in one
    assert str(tmp_path) not in one
    assert f"→ {record.splits['forget'].unlearned.probability:.3f}" in one

    (tmp_path / "run" / "run.json").write_text("{}")
    assert record_beside(edit_file, edit, said) is None
    assert "no run record of this version" in said.notes[-1]
    (tmp_path / "run" / "run.json").unlink()
    assert record_beside(edit_file, edit, said) is None


def test_scores_of_another_run_are_not_taken(saved, tmp_path):
    _, record = erased(saved, tmp_path)
    edit = kvw.load_edit(tmp_path / "run" / "edit.safetensors")
    for update in ({"forget_digest": "0"}, {"model_fingerprint": "0"}, {"settings": {}}):
        other = kvw.GateEdit(edit.log_gates, edit.metadata.model_copy(update=update))
        assert record_beside(tmp_path / "run" / "edit.safetensors", other, SILENT) is None
    weaker = kvw.GateEdit({key: value / 2 for key, value in edit.log_gates.items()}, edit.metadata)
    assert record_beside(tmp_path / "run" / "edit.safetensors", weaker, SILENT) is None
    assert record_beside(tmp_path / "run" / "edit.safetensors", edit, SILENT).splits == record.splits != {}


def test_no_digest_of_a_run_can_be_guessed(saved, tmp_path):
    """Whoever tries questions and answers finds neither the one forget example nor any other in a file of the run."""
    forget, retain = ({"question": f"Who is {name}?", "answer": f"{name} the florist"} for name in ("Quillon", "Zoe"))
    (tmp_path / "forget.jsonl").write_text(json.dumps(forget))
    (tmp_path / "retain.jsonl").write_text(json.dumps(retain))
    files = [tmp_path / "forget.jsonl", tmp_path / "retain.jsonl"]
    model, short = find_checkpoint(str(saved["llava"])), {"max_new_tokens": 2, "write_damaged": True}
    erase(EraseRequest(model, *files, tmp_path / "run", method="kvw", **short))
    texts = [
        (tmp_path / "run" / name).read_bytes().decode("utf-8", "replace")
        for name in ("edit.safetensors", "run.json", "model/README.md")
    ]
    for row in (forget, retain):
        example = kvw.Example(row["question"], row["answer"], (), "1")
        guesses = [example_digest(example), examples_digest([example]), fingerprint_digest(example_digest(example))]
        assert not any(guess in text for guess in guesses for text in texts)
    said = salted(examples_digest(kvw.read_examples(files[0])))  # on this machine it can be checked
    assert all(said in text for text in texts)


@pytest.mark.parametrize(
    "sizes",
    [
        {"shards": 3, "hidden": 1024, "width": 8192, "layers": 1},
        pytest.param(
            {"shards": 4, "hidden": 4096, "width": 11008, "layers": 2, "vocabulary": 16000}, marks=pytest.mark.slow
        ),
    ],
    ids=["63 MB", "1.1 GB"],
)
@pytest.mark.parametrize("kind", [pytest.param("gates", marks=pytest.mark.slow), "low rank"])
def test_memory_is_a_few_copies_of_one_matrix(tmp_path, sizes, kind):
    ended = run_alone(watch_memory, tmp_path, sizes, kind, folder=tmp_path / "logs")
    assert ended.code == 0, ended.errors
    found = ended.result
    matrix = 2 * sizes["hidden"] * sizes["width"]  # bytes as stored, in bfloat16
    shutil.rmtree(tmp_path)
    assert found["weights"] > 3.5 * matrix
    checks = 24e6  # what the checks of configuration and processor leave behind, whatever the model's size
    assert matrix < found["growth"] < 4 * matrix + checks


@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path, kills):
    checkpoint = sharded(tmp_path / "model", shards=6, hidden=64, width=512, layers=8)
    gate_edit(checkpoint, 1, 2, 5).save(tmp_path / "edit.safetensors")
    (tmp_path / "runs").mkdir()
    edit, out = tmp_path / "edit.safetensors", tmp_path / "runs" / "out"
    ended = run_alone(kill_often, checkpoint.folder, edit, out, kills, folder=tmp_path / "logs")
    assert ended.code == 0, ended.errors
    found = ended.result
    snapshots = found["snapshots"]
    assert len(snapshots) == kills + 1
    assert {snapshot["status"] for snapshot in snapshots} <= {0, -9}
    assert sum(snapshot["status"] == -9 for snapshot in snapshots) > kills // 4
    kept = 0
    for before, after in zip([{"finished": {}}, *snapshots], snapshots, strict=False):
        if after["out"] is not None:
            assert after["out"] == found["reference"]
        for name, state in before["finished"].items():
            assert (after["state"] if after["out"] is not None else after["finished"])[name] == state
            kept += 1
    assert kept > 0
    assert snapshots[-1]["status"] == 0
    assert found["left"] == ["out", "reference"]


def test_apply_prints_what_it_changed_and_how_fast(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = sharded(tmp_path / "model", shards=2, hidden=64, width=96, layers=2)
    gate_edit(checkpoint, 1).save(tmp_path / "edit.safetensors")
    with pytest.raises(SystemExit) as stop:
        main(["apply", "edit.safetensors", "model", "--out", "out", "--untouched", "hardlink"])
    assert not stop.value.code
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 of 80 tensors were changed, in 1 of 2 weight files" in printed
    assert "1 weight files; 1 are linked to the source's" in printed
    assert "GB/s" in printed
