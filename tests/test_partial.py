"""A directory that is filled over several runs."""

from __future__ import annotations

import json
import os

import pytest

from kvw import claim as module
from kvw.claim import partial_path
from kvw.errors import Unreadable, UserError
from kvw.partial import finished_before, resumable_directory

JOB = {"edit": "a", "checkpoint": "b"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def interrupted(out, job=JOB, error=KeyboardInterrupt):
    """A run that finished one file and ended in the middle of another and of a folder."""

    def run():
        with resumable_directory(out, job) as partial:
            (partial.folder / "one").write_text("1")
            partial.finish("one", "the first")
            (partial.folder / "two").write_text("hal")
            (partial.folder / "folder").mkdir()
            (partial.folder / "folder" / "three").write_text("3")
            raise error("the end")

    with pytest.raises(error):
        run()


def test_it_appears_when_it_is_complete(tmp_path):
    with resumable_directory(tmp_path / "deep" / "out", JOB) as partial:
        assert partial.finished() == {}
        assert partial.differing == ()
        (partial.folder / "one").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == [".kvw", "one"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Unreadable])
def test_the_same_job_goes_on_with_what_was_finished_and_nothing_else(tmp_path, error):
    interrupted(tmp_path / "out", error=error)
    assert not (tmp_path / "out").exists()
    assert finished_before(tmp_path / "out", JOB) == {"one"}
    before = (partial_path(tmp_path / "out") / "content" / "one").stat()
    with resumable_directory(tmp_path / "out", JOB) as partial:
        assert partial.finished() == {"one": "the first"}
        assert names(partial.folder) == ["one"]
    after = (tmp_path / "out" / "one").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("job", "differing"),
    [({**JOB, "edit": "c"}, ("edit",)), ({"edit": "a", "way": "copy"}, ("checkpoint", "way"))],
)
def test_another_job_starts_over_and_knows_why(tmp_path, job, differing):
    interrupted(tmp_path / "out")
    assert finished_before(tmp_path / "out", job) == frozenset()
    with resumable_directory(tmp_path / "out", job) as partial:
        assert partial.differing == differing
        assert partial.finished() == {}
        assert names(partial.folder) == []
    assert names(tmp_path) == ["out"]


def test_a_finished_file_that_was_changed_is_not_kept(tmp_path):
    interrupted(tmp_path / "out")
    (partial_path(tmp_path / "out") / "content" / "one").write_text("another")
    with resumable_directory(tmp_path / "out", JOB) as partial:
        assert partial.finished() == {}
        assert names(partial.folder) == []


@pytest.mark.parametrize("error", [RuntimeError("a bug"), UserError("wrong"), OSError(28, "No space left on device")])
def test_an_error_leaves_nothing(tmp_path, error):
    interrupted(tmp_path / "out")

    def fail():
        with resumable_directory(tmp_path / "out", JOB):
            raise error

    with pytest.raises((type(error), UserError)):
        fail()
    assert names(tmp_path) == []


def test_one_process_at_a_time(tmp_path):
    with resumable_directory(tmp_path / "out", JOB) as partial:
        (partial.folder / "one").write_text("1")
        partial.finish("one", "")
        with pytest.raises(UserError, match="Another process is writing"), resumable_directory(tmp_path / "out", JOB):
            pass
        assert partial.finished() == {"one": ""}
    assert names(tmp_path / "out") == [".kvw", "one"]
    assert names(tmp_path) == ["out"]


def test_a_lock_on_a_file_that_was_removed_in_between_does_not_count(tmp_path, monkeypatch):
    """Two processes: the first removes its lock after the second has opened it and before it is locked."""
    plain, seen = os.open, []

    def opened(path, *arguments, **options):
        handle = plain(path, *arguments, **options)
        if os.path.basename(path) == "lock" and not seen:  # noqa: PTH119
            seen.append(handle)
            os.unlink(path)  # noqa: PTH108
        return handle

    monkeypatch.setattr(module.os, "open", opened)
    with resumable_directory(tmp_path / "out", JOB):
        assert seen
        with pytest.raises(UserError, match="Another process"), resumable_directory(tmp_path / "out", JOB):
            pass
    assert names(tmp_path) == ["out"]


def test_a_directory_that_goes_away_before_it_can_be_locked_is_made_again(tmp_path, monkeypatch):
    plain, seen = os.open, []

    def opened(path, *arguments, **options):
        if os.path.basename(path) == "lock" and not seen:  # noqa: PTH119
            seen.append(path)
            raise FileNotFoundError(2, "gone")
        return plain(path, *arguments, **options)

    monkeypatch.setattr(module.os, "open", opened)
    with resumable_directory(tmp_path / "out", JOB):
        pass
    assert names(tmp_path) == ["out"]


def test_what_another_one_wrote_meanwhile_is_not_replaced(tmp_path):
    def late():
        with resumable_directory(tmp_path / "out", JOB) as partial:
            (partial.folder / "one").write_text("1")
            partial.finish("one", "")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").write_text("x")

    with pytest.raises(UserError, match="not empty"):
        late()
    assert names(tmp_path / "out") == ["theirs"]
    with (
        pytest.raises(UserError, match=r"mark(.|\n)*has the beginnings of a run that was interrupted"),
        resumable_directory(tmp_path / "out", JOB, force=True),
    ):
        pass
    assert names(tmp_path / "out") == ["theirs"]
    (tmp_path / "out" / "theirs").unlink()
    with resumable_directory(tmp_path / "out", JOB, force=True) as partial:
        assert partial.finished() == {"one": ""}
    assert names(tmp_path / "out") == [".kvw", "one"]
    assert names(tmp_path) == ["out"]


def test_files_that_a_kill_left_half_written_beside_the_notes_go_away(tmp_path):
    interrupted(tmp_path / "out")
    (partial_path(tmp_path / "out") / ".job.json.x.partial").write_text("{")
    with resumable_directory(tmp_path / "out", JOB):
        pass
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["job.json", "finished/one.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"[1, 2]",
        lambda content: json.dumps({"state": "x", "note": 1}).encode(),
        lambda content: b"\xff" + content,
        *(lambda content, at=at: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in (0, 20, 90)),
        lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    ],
)
def test_a_damaged_note_is_started_over_and_told(tmp_path, caplog, name, damage):
    interrupted(tmp_path / "out")
    note = partial_path(tmp_path / "out") / name
    note.write_bytes(damage(note.read_bytes()))
    with resumable_directory(tmp_path / "out", JOB) as partial:
        assert partial.finished() == {}
        assert names(partial.folder) == []
    assert f"{name.rpartition('/')[2]} is damaged" in caplog.text
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["job.json", "finished", "content"])
def test_beginnings_of_another_shape_are_started_over(tmp_path, name):
    interrupted(tmp_path / "out")
    place = partial_path(tmp_path / "out") / name
    module.discard(place)
    if name == "job.json":
        place.mkdir()
    else:
        place.write_text("a file")
    with resumable_directory(tmp_path / "out", JOB) as partial:
        assert partial.finished() == {}
        (partial.folder / "one").write_text("1")
        partial.finish("one", "")
    assert names(tmp_path) == ["out"]


def test_finished_files_are_told_by_their_bytes_and_not_by_their_times(tmp_path):
    interrupted(tmp_path / "out")
    one = partial_path(tmp_path / "out") / "content" / "one"
    before = one.stat()
    with one.open("r+b") as file:  # the same inode and size
        file.write(b"2")
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert finished_before(tmp_path / "out", JOB) == {"one"}
    with resumable_directory(tmp_path / "out", JOB) as partial:
        assert partial.finished() == {}
