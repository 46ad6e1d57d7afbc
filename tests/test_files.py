"""Either the old state or the new one."""

from __future__ import annotations

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
