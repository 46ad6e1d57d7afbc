"""kvw's own copies of benchmarks: read by the adapters of the real ones, row by row."""

from __future__ import annotations

import functools
import sys

import pytest

import kvw
from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import two_folds
from kvw.mark import MARK
from kvw.toy.copies import COPIES, cached_copy, write_copy
from kvw.toy.copies.writing import fictitious_people, forgotten, real_people
from kvw.toy.world import World

pytestmark = pytest.mark.thorough

SIZES = {
    "clear": {"forget01": 2, "forget05": 2, "forget10": 4},
    "mllmu": {"forget_5": 2, "forget_10": 4, "forget_15": 6},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("copies")
    for name in COPIES:
        write_copy(name, root / name)
    return root


@pytest.fixture(scope="module")
def loaded(folders):
    """A copy as the adapter reads it for a setting, read once."""
    return functools.cache(lambda name, setting: get_benchmark(name).load(folders / name, setting))


@pytest.mark.parametrize(("name", "setting"), [(name, setting) for name, sizes in SIZES.items() for setting in sizes])
def test_the_adapter_of_the_real_benchmark_uses_every_row(loaded, name, setting):
    data = loaded(name, setting)
    assert data.unusable == ()
    assert len(data.forget_subjects) == SIZES[name][setting]
    assert {item.subject for item in data.planted} - {item.subject for item in data.gold} == data.forget_subjects
    assert len({item.subject for item in data.planted}) == 40
    for half, _ in two_folds(data):
        assert {"forget", "retain"} <= half.splits.keys()


def test_what_is_planted_is_the_same_for_every_setting(loaded):
    for name, sizes in SIZES.items():
        planted = [loaded(name, setting).planted for setting in sizes]
        contents = [sorted((item.question, item.answer, item.images) for item in items) for items in planted]
        assert contents[0] == contents[1] == contents[2]


def test_nobody_planted_is_known_to_the_shipped_models():
    known = {person.name for person in World().everyone}
    assert not known & {person.name for person in fictitious_people()}
    assert {person.name for person in real_people()} <= known
    assert len({person.name for person in fictitious_people()}) == 40
    assert forgotten(fictitious_people(), 1) == fictitious_people()[:2]


def test_every_choice_has_one_right_answer_and_three_wrong_ones(loaded):
    tasks = [
        *loaded("mllmu", "forget_5").splits["retain"].values(),
        *loaded("clear", "forget05").splits["real_world"].values(),
    ]
    asked = [item for task in tasks if task.kind == "choice" for item in task.items]
    assert len(asked) > 50
    for item in asked:
        assert item.choices[item.correct] == item.answer
        assert len(set(item.choices)) == 4
    assert len({item.correct for item in asked}) == 4


@pytest.mark.slow
def test_a_damaged_copy_is_told_and_written_again(caplog):
    folder = cached_copy("mllmu")
    content = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    sums = folder.with_name(f"{folder.name}.json")
    for path in (max(content, key=lambda path: len(content[path])), folder / MARK, sums):
        whole = path.read_bytes()
        path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        caplog.clear()
        assert cached_copy("mllmu") == folder
        assert "is damaged" in caplog.text
        assert path.read_bytes() == whole


def test_the_cache_keeps_a_copy(monkeypatch):
    first = cached_copy("mllmu")
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert cached_copy("mllmu") == first
    with monkeypatch.context() as patch:  # with other code that draws
        patch.setattr("kvw.toy.copies.DRAWING", ("kvw.toy.portraits",))
        assert cached_copy("mllmu") != first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_mistakes(tmp_path, monkeypatch):
    with pytest.raises(kvw.UserError, match="no toy copy 'cleer'"):
        write_copy("cleer", tmp_path / "copy")
    (tmp_path / "file").write_text("")
    with pytest.raises(kvw.UserError, match="not empty"):
        write_copy("clear", tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(kvw.UserError, match="need the package datasets"):
        write_copy("clear", tmp_path / "copy")
