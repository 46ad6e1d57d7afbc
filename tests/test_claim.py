"""A directory appears when it is complete, and whatever happens, the old one or the new one is there."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
from pathlib import Path

import pytest

from kvw import claim as module
from kvw.claim import claimed, new_directory, partial_path
from kvw.errors import UserError
from kvw.files import write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def old_and_new(out):
    """A directory that kvw wrote, and the beginning of another one that is to take its place."""
    with new_directory(out) as folder:
        write_text(folder / "a", "old")


def replace(out):
    with new_directory(out, force=True) as folder:
        write_text(folder / "a", "new")


def test_a_directory_appears_when_it_is_complete(tmp_path):
    with new_directory(tmp_path / "out" / "deep") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "out" / "deep").exists()
    assert names(tmp_path / "out") == ["deep"]
    assert (tmp_path / "out" / "deep" / "a").read_text() == "x"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_the_old_directory(tmp_path, error):
    old_and_new(tmp_path / "out")

    def fail():
        with new_directory(tmp_path / "out", force=True) as folder:
            (folder / "a").write_text("new")
            raise error

    with pytest.raises((type(error), UserError)):
        fail()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_failure_leaves_no_folder_on_the_way(tmp_path):
    with pytest.raises(RuntimeError), new_directory(tmp_path / "not" / "there" / "out"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_force_replaces_and_leaves_nothing_behind(tmp_path):
    with new_directory(tmp_path / "out") as folder:
        write_text(folder / "old", "old")
    with pytest.raises(UserError, match="not empty"), new_directory(tmp_path / "out"):
        pass
    with new_directory(tmp_path / "out", force=True) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "out") == [".kvw", "new"]
    assert names(tmp_path) == ["out"]


def test_a_link_to_a_directory_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with new_directory(tmp_path / "link") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "there" / "a").read_text() == "x"
    assert names(tmp_path) == ["link", "there"]


@pytest.mark.parametrize("exchanges", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_the_old_directory_is_there_until_the_new_one_is(tmp_path, monkeypatch, exchanges):
    """Every moment of the replacement at which the process is killed: the old one or the new one, and then the rest."""
    if not exchanges:
        monkeypatch.setattr(module, "exchange", lambda *_: False)
    seen = set()
    for moment in range(40):
        place = tmp_path / f"{moment}"
        place.mkdir()
        old_and_new(place / "out")
        killed = killed_at(moment, lambda place=place: replace(place / "out"))
        found = (place / "out" / "a").read_text() if (place / "out" / "a").exists() else None
        seen.add(found)
        if exchanges:
            assert found in ("old", "new")
        replace(place / "out")
        assert (place / "out" / "a").read_text() == "new"
        assert names(place) == ["out"]
        if not killed:
            break
    assert not killed
    assert moment > 8
    assert seen == ({"old", "new"} if exchanges else {"old", "new", None})


def test_what_lies_between_two_renames_is_brought_back_by_whoever_writes_next(tmp_path, monkeypatch):
    old_and_new(tmp_path / "out")
    root = partial_path(tmp_path / "out")
    root.mkdir()
    (tmp_path / "out").rename(root / module.REPLACED)
    with pytest.raises(UserError, match="not empty"):
        old_and_new(tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert names(tmp_path) == ["out"]


def killed_at(moment, work):
    """Whether a process was killed before the so-manieth change of the disk that it makes in ``work``."""
    child = os.fork()
    if not child:
        count = 0

        def counting(plain):
            def call(*arguments, **options):
                nonlocal count
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return plain(*arguments, **options)

            return call

        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
            setattr(os, name, counting(getattr(os, name)))
        module.exchange = counting(module.exchange)
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_an_exchange_that_fails_brings_the_old_directory_back(tmp_path, monkeypatch):
    old_and_new(tmp_path / "out")
    monkeypatch.setattr(module, "exchange", lambda *_: False)
    plain = Path.rename

    def rename(source, target):
        if source.name == module.CONTENT:
            raise KeyboardInterrupt
        return plain(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        replace(tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_the_second_is_refused_at_once(tmp_path):
    with claimed(tmp_path / "out"):
        with pytest.raises(UserError, match="Another process is writing"), claimed(tmp_path / "out"):
            pass
        context = multiprocessing.get_context("fork")
        refused = context.Process(target=_try, args=(tmp_path / "out",))
        refused.start()
        refused.join()
        assert refused.exitcode == 5
    assert names(tmp_path) == []


def _try(out):
    try:
        with claimed(out):
            pass
    except UserError:
        os._exit(5)


def test_what_came_meanwhile_is_not_replaced(tmp_path):
    def late():
        with new_directory(tmp_path / "out", force=True):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").write_text("x")

    with pytest.raises(UserError, match="mark"):
        late()
    assert names(tmp_path / "out") == ["theirs"]
    assert names(tmp_path) == ["out"]


def test_what_was_secured_is_kept_and_nothing_else(tmp_path):
    with claimed(tmp_path / "out") as claim:
        write_text(claim.empty() / "answers", "x")
        claim.secure()
        (claim.folder / "model").mkdir()
        (claim.folder / "model" / "half").write_text("x")
        assert claim.keep("run") == tmp_path / "out.kept"
    with claimed(tmp_path / "out") as claim:
        assert claim.kept is None
        claim.empty()
        assert claim.keep("run") is None
        write_text(claim.empty() / "answers", "y")
        assert claim.keep("run") == tmp_path / "out.kept-2"
    assert names(tmp_path) == ["out.kept", "out.kept-2"]
    assert names(tmp_path / "out.kept") == [".kvw", "answers"]
    assert stat.S_IMODE((tmp_path / "out.kept").stat().st_mode) == 0o700


def test_what_a_killed_run_had_secured_is_kept_by_the_next(tmp_path):
    child = os.fork()
    if not child:
        with claimed(tmp_path / "out") as claim:
            write_text(claim.empty() / "answers", "x")
            claim.secure()
            (claim.folder / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with claimed(tmp_path / "out") as claim:
        assert claim.kept == tmp_path / "out.kept"
    assert names(tmp_path) == ["out.kept"]
    assert names(tmp_path / "out.kept") == [".kvw", "answers"]


def test_what_was_replaced_is_not_taken_for_what_was_secured(tmp_path):
    """Killed right after the exchange: where the new directory was secured lies the old one."""
    with new_directory(tmp_path / "out") as folder:
        write_text(folder / "answers", "old")
    child = os.fork()
    if not child:
        with claimed(tmp_path / "out", force=True) as claim:
            write_text(claim.empty() / "answers", "new")
            claim.secure()
            module.write_mark(claim.folder, "output")
            module.exchange(claim.folder, claim.path)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with claimed(tmp_path / "out", force=True) as claim:
        assert claim.kept is None
    assert (tmp_path / "out" / "answers").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_a_directory_in_another_one_shares_its_fate(tmp_path):
    with claimed(tmp_path / "out") as outer:
        assert not outer.nested
        with claimed(outer.empty() / "run") as inner:
            assert inner.nested


def test_room_is_taken_at_the_beginning(tmp_path, monkeypatch):
    with claimed(tmp_path / "out") as claim:
        claim.reserve(2**20)
        assert (claim.root / module.RESERVE).stat().st_blocks * 512 >= 2**20
        assert names(claim.empty()) == []
        assert not (claim.root / module.RESERVE).exists()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="disk is full"), claimed(tmp_path / "out") as claim:
        claim.reserve(2**20)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["n" * 250, "n" * 255, "\u00e4" * 127])
def test_long_names(tmp_path, name):
    old_and_new(tmp_path / name)
    replace(tmp_path / name)
    assert names(tmp_path) == [name]
    with claimed(tmp_path / name, force=True) as claim:
        write_text(claim.empty() / "answers", "x")
        kept = claim.keep("run")
    assert kept is not None
    assert kept.name.endswith(".kept")
    assert names(tmp_path) == sorted([name, kept.name])
    with pytest.raises(UserError, match="could not be written"), claimed(tmp_path / ("n" * 256)):
        pass


def test_modes(tmp_path):
    before = os.umask(0o022)
    try:
        for public, mode in ((False, 0o700), (True, 0o755)):
            with new_directory(tmp_path / f"{public}", public=public) as folder:
                assert stat.S_IMODE(partial_path(tmp_path / f"{public}").stat().st_mode) == 0o700
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / f"{public}").stat().st_mode) == mode
    finally:
        os.umask(before)
