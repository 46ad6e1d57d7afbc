"""Either the old state or the new one."""

from __future__ import annotations

import json
import os
import stat

import pytest

from kvw.errors import UserError
from kvw.files import new_file, write_bytes, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_could_not_be_written_is_as_it_was(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_places_that_cannot_be_written_are_messages(tmp_path):
    write_text(tmp_path / "file", "x")
    for path in (tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(UserError, match="could not be written"):
            write_text(path, "x")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_not_public_is_for_its_owner_alone(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "new" / "deep" / "answers", "x")
        write_text(tmp_path / "card", "x", public=True)
        assert mode(tmp_path / "new" / "deep" / "answers") == 0o600
        assert mode(tmp_path / "new") == mode(tmp_path / "new" / "deep") == 0o700
        assert mode(tmp_path / "card") == 0o644
    finally:
        os.umask(before)


def test_a_lone_surrogate_is_written_as_json_writes_it(tmp_path):
    write_text(tmp_path / "a", json.dumps({"id": "x\udc80"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a").read_bytes()) == {"id": "x\udc80"}


@pytest.mark.parametrize("name", ["n" * 250, "n" * 255, "\u00e4" * 127])
def test_long_names(tmp_path, name):
    for content in (b"old", b"new"):
        write_bytes(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
    assert names(tmp_path) == [name]
    with pytest.raises(UserError, match="could not be written"):
        write_bytes(tmp_path / ("n" * 256), b"x")


def test_what_a_killed_process_has_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    child = os.fork()
    if not child:
        with new_file(tmp_path / "a") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert len(names(tmp_path)) == 1
    with new_file(tmp_path / "a") as temporary:
        assert names(tmp_path) == [temporary.name]
        temporary.write_text("first")
        write_text(tmp_path / "a", "second")
        assert temporary.exists()
    assert (tmp_path / "a").read_text() == "first"
    assert names(tmp_path) == ["a"]
