"""What may be written and what is never replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kvw.claim import new_directory
from kvw.errors import UserError
from kvw.files import write_text
from kvw.mark import MARK, marked_kind, strangers, write_mark
from kvw.output import check_output_directory, check_output_file, growing_directory


@pytest.fixture
def written(tmp_path):
    with new_directory(tmp_path / "written", "run") as folder:
        write_text(folder / "run.json", "{}")
        write_text(folder / "model" / "config.json", "{}")
    return tmp_path / "written"


def test_an_empty_directory_may_be_filled_and_a_file_may_not(tmp_path):
    (tmp_path / "empty").mkdir()
    check_output_directory(tmp_path / "empty", force=False)
    write_text(tmp_path / "file", "x")
    with pytest.raises(UserError, match="is a file"):
        check_output_directory(tmp_path / "file", force=True)


@pytest.mark.parametrize("output", ["project", "project/model", "project/data.jsonl"])
def test_what_a_run_reads_is_never_replaced(tmp_path, output):
    (tmp_path / "project" / "model").mkdir(parents=True)
    write_text(tmp_path / "project" / "data.jsonl", "{}")
    for folder in ("project/model", "project", "."):  # marked or not
        write_mark(tmp_path / folder, "run")
    inputs = [tmp_path / "project" / "model", tmp_path / "project" / "data.jsonl"]
    for path in (tmp_path / output, tmp_path):
        with pytest.raises(UserError, match="which this run reads"):
            check_output_directory(path, force=True, keep=inputs)
    check_output_directory(tmp_path / "project" / "run", force=True, keep=inputs)


@pytest.mark.parametrize("output", ["links", "between", "there"])
def test_links_to_what_a_run_reads_are_followed(tmp_path, output):
    for name in ("links", "between", "there"):
        (tmp_path / name).mkdir()
    write_text(tmp_path / "there" / "photo", "x")
    (tmp_path / "between" / "photo").symlink_to(Path("..") / "there" / "photo")
    (tmp_path / "links" / "photo").symlink_to(tmp_path / "between" / "photo")
    write_mark(tmp_path / output, "run")
    with pytest.raises(UserError, match="which this run reads"):
        check_output_directory(tmp_path / output, force=True, keep=[tmp_path / "links" / "photo"])


def test_force_replaces_only_what_carries_the_mark(tmp_path, written):
    check_output_directory(written, force=True)
    (tmp_path / "photos").mkdir()
    write_text(tmp_path / "photos" / "one.jpg", "x")
    with pytest.raises(UserError, match="does not carry kvw's mark"):
        check_output_directory(tmp_path / "photos", force=True)
    for mark in ("", "{}", "[]", '{"format": "kvw output 1"}', '{"format": "kvw output 1", "files": "one.jpg"}'):
        (tmp_path / "photos" / MARK).write_text(mark)
        with pytest.raises(UserError, match="does not carry kvw's mark"):
            check_output_directory(tmp_path / "photos", force=True)


@pytest.mark.parametrize("name", ["thesis.txt", "model/notes/deep.txt", "link"])
def test_files_that_were_put_into_a_marked_folder_are_never_replaced(tmp_path, written, name):
    (written / name).parent.mkdir(exist_ok=True, parents=True)
    if name == "link":
        (written / name).symlink_to(tmp_path)
    else:
        (written / name).write_text("precious")
    with pytest.raises(UserError, match="kvw did not write") as caught:
        check_output_directory(written, force=True)
    assert name in caught.value.found


def test_the_mark_holds_names_of_files_and_nothing_else(written):
    assert json.loads((written / MARK).read_text()).keys() == {"format", "kvw", "kind", "files"}
    assert json.loads((written / MARK).read_text())["files"] == ["model/config.json", "run.json"]
    assert marked_kind(written) == "run"
    assert strangers(written) == []


@pytest.mark.parametrize("place", ["home", "current", "above", "root"])
def test_places_that_are_never_replaced(tmp_path, monkeypatch, place):
    (tmp_path / "above" / "current").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    for folder in ("above", "above/current", "home"):
        write_mark(tmp_path / folder, "run")
    monkeypatch.chdir(tmp_path / "above" / "current")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    paths = {"home": tmp_path / "home", "current": Path(), "above": tmp_path / "above", "root": Path("/")}
    with pytest.raises(UserError, match=r"is or holds (the current|your home) folder"):
        check_output_directory(paths[place], force=True)


def test_a_mount_point_is_never_replaced(written, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == written)
    with pytest.raises(UserError, match="mount point"):
        check_output_directory(written, force=True)


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    write_text(tmp_path / "file", "x")
    for path in (tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run", tmp_path / ("n" * 256)):
        with pytest.raises(UserError, match="could not be written"):
            check_output_directory(path, force=False)
        with pytest.raises(UserError, match="could not be written"):
            check_output_file(path, force=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="Permission denied"):
        check_output_directory(tmp_path / "out", force=False)
    with pytest.raises(UserError, match="Permission denied"):
        check_output_file(tmp_path / "out", force=False)


def test_a_path_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"o\xff")
    for check in (check_output_directory, check_output_file):
        with pytest.raises(UserError, match="not UTF-8"):
            check(path, force=False)


def stored(path, form):
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)}, {"format": form} if form else None))


@pytest.mark.parametrize("form", ["kvw edit 3", "kvw edit 1"])
def test_a_file_of_the_same_form_is_replaced_by_force(tmp_path, form):
    stored(tmp_path / "a.safetensors", form)
    check_output_file(tmp_path / "a.safetensors", force=True, form="kvw edit")
    with pytest.raises(UserError, match="exists"):
        check_output_file(tmp_path / "a.safetensors", force=False, form="kvw edit")
    with pytest.raises(UserError, match="this command reads"):
        check_output_file(tmp_path / "a.safetensors", force=True, form="kvw edit", keep=[tmp_path / "a.safetensors"])


@pytest.mark.parametrize("form", ["", "pt", "kvw statistics 1", "kvw edit"])
def test_a_file_of_another_form_is_never_replaced(tmp_path, form):
    stored(tmp_path / "a.safetensors", form)
    with pytest.raises(UserError, match="not a file that this command writes"):
        check_output_file(tmp_path / "a.safetensors", force=True, form="kvw edit")


@pytest.mark.parametrize("content", [b"", b"a thesis", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"[]"])
def test_a_file_of_somebody_is_never_replaced(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="not a file that this command writes"):
        check_output_file(tmp_path / "a.safetensors", force=True, form="kvw edit")
    assert (tmp_path / "a.safetensors").read_bytes() == content


def test_a_folder_that_grows_is_taken_by_one_at_a_time_and_gone_on_with(tmp_path):
    for _ in range(2):
        with growing_directory(tmp_path / "out", "bench"):
            write_text(tmp_path / "out" / "row", "x")
            with (
                pytest.raises(UserError, match="Another process is writing"),
                growing_directory(tmp_path / "out", "bench"),
            ):
                pass
    with pytest.raises(UserError, match="does not carry kvw's mark"):
        check_output_directory(tmp_path / "out", force=True)
    with pytest.raises(UserError, match="something other"), growing_directory(tmp_path / "out", "another"):
        pass


def test_a_folder_of_somebody_does_not_grow(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("x")
    with pytest.raises(UserError, match="something other"), growing_directory(tmp_path / "photos", "bench"):
        pass
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["one.jpg"]
