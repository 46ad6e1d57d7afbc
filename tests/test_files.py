"""Either the old state or the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvw.errors import UserError
from kvw.files import check_output_directory, new_directory, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_could_not_be_written_is_as_it_was(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_directory_appears_when_it_is_complete(tmp_path):
    with new_directory(tmp_path / "out" / "deep") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "out" / "deep").exists()
    assert names(tmp_path / "out") == ["deep"]
    assert (tmp_path / "out" / "deep" / "a").read_text() == "x"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_the_old_directory(tmp_path, error):
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / "a", "old")

    def fail():
        with new_directory(tmp_path / "out", force=True) as folder:
            (folder / "a").write_text("new")
            raise error

    with pytest.raises((type(error), UserError)):
        fail()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_force_replaces_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / "old", "old")
    with pytest.raises(UserError, match="not empty"), new_directory(tmp_path / "out"):
        pass
    with new_directory(tmp_path / "out", force=True) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_an_empty_directory_may_be_filled_and_a_file_may_not(tmp_path):
    (tmp_path / "empty").mkdir()
    check_output_directory(tmp_path / "empty", force=False)
    write_text(tmp_path / "file", "x")
    with pytest.raises(UserError, match="is a file"):
        check_output_directory(tmp_path / "file", force=True)


def test_a_failing_exchange_brings_the_old_directory_back(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / "a", "old")
    plain = Path.rename

    def rename(source, target):
        if source.name.endswith(".partial"):
            raise KeyboardInterrupt
        return plain(source, target)

    monkeypatch.setattr(Path, "rename", rename)

    def exchange():
        with new_directory(tmp_path / "out", force=True) as folder:
            (folder / "a").write_text("new")

    with pytest.raises(KeyboardInterrupt):
        exchange()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("output", ["project", "project/model", "project/data.jsonl", "."])
def test_what_a_run_reads_is_never_replaced(tmp_path, output):
    (tmp_path / "project" / "model").mkdir(parents=True)
    write_text(tmp_path / "project" / "data.jsonl", "{}")
    inputs = [tmp_path / "project" / "model", tmp_path / "project" / "data.jsonl"]
    with pytest.raises(UserError, match="which this run reads"):
        check_output_directory(tmp_path / output, force=True, keep=inputs)
    check_output_directory(tmp_path / "project" / "run", force=True, keep=inputs)


def test_a_link_to_a_directory_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with new_directory(tmp_path / "link") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "there" / "a").read_text() == "x"
    assert names(tmp_path) == ["link", "there"]


def test_places_that_cannot_be_written_are_messages(tmp_path):
    write_text(tmp_path / "file", "x")
    for path in (tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(UserError):
            check_output_directory(path, force=False)
        with pytest.raises(UserError, match="could not be written"):
            write_text(path, "x")
