"""A checkpoint that changes while it is read is found, and its digest is not remembered."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from tests.checkpoints import gate_edit

from kvw.errors import UserError
from kvw.evaluation import loaded as loaded_module
from kvw.evaluation.loaded import Loaded
from kvw.measuring import fingerprint
from kvw.measuring.fingerprint import remembered_digest, weight_digests, weights_digest
from kvw.measuring.source_state import SourceState
from kvw.models import patching
from kvw.models.loading import find_checkpoint
from kvw.progress import SILENT
from kvw.runs import solving
from kvw.runs.apply import apply
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest


@pytest.fixture
def folder(tmp_path, two_shards):
    return shutil.copytree(two_shards, tmp_path / "model")


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def flip(path):
    """Change the last byte in place and set the times of modification and access back."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def replace(path):
    """Let another file of the same size take its place, as downloads and synchronisation do."""
    other = path.with_name("other")
    shutil.copyfile(path, other)
    flip(other)
    other.rename(path)


CHANGES = {
    "a byte": lambda folder: flip(shards(folder)[1]),
    "another file": lambda folder: replace(shards(folder)[0]),
    "a removed file": lambda folder: shards(folder)[0].unlink(),
    "a file that is loaded instead": lambda folder: shutil.copyfile(shards(folder)[0], folder / "model.safetensors"),
    "the configuration": lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace("{", "{ ", 1)
    ),
    "the tokenizer": lambda folder: flip(folder / "tokenizer.json"),
    "a new file that belongs to the model": lambda folder: (folder / "chat_template.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("known", [True, False])
def test_a_change_is_found(folder, change, known):
    state, digests = SourceState(folder), weight_digests(folder) if known else None
    state.check(digests)
    CHANGES[change](folder)
    with pytest.raises(UserError, match=r"was changed while it was read|lacks weight files"):
        state.check(digests)


def test_a_file_that_was_only_touched_passes_if_its_digest_is_known(folder):
    state, digests = SourceState(folder), weight_digests(folder)
    os.utime(shards(folder)[0])
    state.check(digests)
    with pytest.raises(UserError, match="was changed while it was read"):
        state.check()


def test_a_hard_link_of_this_run_is_no_change(folder, tmp_path):
    state, name = SourceState(folder), shards(folder)[0].name
    os.link(shards(folder)[0], tmp_path / "link")
    with pytest.raises(UserError, match="was changed while it was read"):
        state.check()
    state.check(linked=[name])
    os.utime(shards(folder)[0])
    with pytest.raises(UserError, match="was changed while it was read"):
        state.check(linked=[name])


@pytest.mark.parametrize("change", [flip, replace])
def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(folder, monkeypatch, change):
    path, plain = shards(folder)[0], fingerprint.hashlib.file_digest

    def changing(file, name):
        found = plain(file, name)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            change(path)
        return found

    monkeypatch.setattr(fingerprint.hashlib, "file_digest", changing)
    with pytest.raises(UserError, match="was changed while it was read"):
        weights_digest(folder)
    monkeypatch.undo()
    assert remembered_digest(path) is None


def test_the_digest_is_that_of_what_was_loaded(folder, monkeypatch):
    plain = loaded_module.load_model

    def changing(*arguments, **options):
        model = plain(*arguments, **options)
        replace(shards(folder)[0])
        return model

    monkeypatch.setattr(loaded_module, "load_model", changing)
    with pytest.raises(UserError, match="was changed while it was read"):
        Loaded.load(find_checkpoint(str(folder)))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.thorough
def test_apply_writes_nothing_from_a_source_that_changes(folder, tmp_path, monkeypatch, change):
    edit, plain, copied = gate_edit(find_checkpoint(str(folder)), 0, 1), patching._copy, []

    def changing(path, *arguments):
        found = plain(path, *arguments)
        copied.append(path.name)
        if len(copied) == 2:  # both shards have been copied, and the first has been compared
            CHANGES[change](folder)
        return found

    monkeypatch.setattr(patching, "_copy", changing)
    with pytest.raises(UserError):
        apply(edit, find_checkpoint(str(folder)), tmp_path / "out", SILENT)
    assert not (tmp_path / "out").exists()
    assert all(remembered_digest(path) is None for path in folder.glob("*.safetensors"))


@pytest.mark.thorough
def test_shards_of_two_versions_are_not_mixed(folder, tmp_path, monkeypatch):
    edit, plain, copied = gate_edit(find_checkpoint(str(folder)), 0, 1), patching._copy, []

    def changing(path, *arguments):
        if copied:  # a new version of the model arrives after the first shard
            replace(path)
        copied.append(path.name)
        return plain(path, *arguments)

    monkeypatch.setattr(patching, "_copy", changing)
    with pytest.raises(UserError, match="was changed while it was read") as caught:
        apply(edit, find_checkpoint(str(folder)), tmp_path / "out", SILENT)
    assert caught.value.found == shards(folder)[1].name
    assert not (tmp_path / "out").exists()
    assert remembered_digest(shards(folder)[1]) is None


@pytest.mark.thorough
@pytest.mark.parametrize("untouched", ["copy", "hardlink"])
def test_apply_to_a_source_at_rest(folder, tmp_path, untouched):
    checkpoint, before = find_checkpoint(str(folder)), {path.name: path.read_bytes() for path in shards(folder)}
    apply(gate_edit(checkpoint, 0), checkpoint, tmp_path / untouched, SILENT, untouched=untouched)
    written = {path.name: path.read_bytes() for path in shards(tmp_path / untouched)}
    assert [written[name] == before[name] for name in before] == [False, True]
    assert {path.name: path.read_bytes() for path in shards(folder)} == before


@pytest.mark.thorough
@pytest.mark.parametrize("save_model", [True, False])
@pytest.mark.parametrize("change", [flip, replace])
def test_erase_gives_no_run_of_a_source_that_changes(saved, tmp_path, monkeypatch, save_model, change):
    shutil.copytree(saved["llava"], tmp_path / "model")
    rows = [{"question": "Who?", "answer": "Anna Lindt"}, {"question": "Where?", "answer": "Bonn"}]
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"question": "When?", "answer": "in 1900"}]
    plain = solving.make_edit

    def changing(*arguments):
        change(tmp_path / "model" / "model.safetensors")
        return plain(*arguments)

    monkeypatch.setattr(solving, "make_edit", changing)
    request = EraseRequest(
        model=find_checkpoint(str(tmp_path / "model")),
        forget=tmp_path / "forget.jsonl",
        retain=tmp_path / "retain.jsonl",
        out=tmp_path / "run",
        method="kvw",
        save_model=save_model,
        write_damaged=True,  # random weights lose by chance what they never knew
    )
    with pytest.raises(UserError, match="changed while it was read"):
        erase(request)
    assert not (tmp_path / "run").exists()
    assert remembered_digest(tmp_path / "model" / "model.safetensors") is None
