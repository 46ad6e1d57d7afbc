"""The toy benchmark as an adapter."""

from __future__ import annotations

import pytest
from PIL import Image

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import two_folds
from kvw.toy import world
from kvw.toy.benchmark import items
from kvw.toy.benchmark.people import FORGET_PERCENT, PERSON_TASKS, SPLITS, benchmark_world, percent

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def data():
    """With a plain colour for each photo: how faces are drawn is for other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            world, "draw_portrait", lambda person, photo, size: Image.new("RGB", (9, 9), (person.index, photo, 0))
        )
        patch.setattr(items, "_world", items._world.__wrapped__)
        return get_benchmark("toy-200").load(setting="forget05")


def test_splits_and_tasks(data):
    assert list(data.splits) == [*SPLITS, "general"]
    assert all(list(data.splits[split]) == list(PERSON_TASKS) for split in SPLITS)
    subjects = {
        split: {item.subject for task in tasks.values() for item in task.items} for split, tasks in data.splits.items()
    }
    assert len(subjects["forget"]) == 10
    assert subjects["test"] == subjects["forget"] == data.forget_subjects
    assert not subjects["forget"] & (subjects["retain"] | subjects["unused"])
    assert not subjects["retain"] & subjects["unused"]
    assert len(subjects["retain"] | subjects["unused"]) == 190


def test_what_methods_get(data):
    forget, retain = data.training["forget"], data.training["retain"]
    assert {item.subject for item in forget} == data.forget_subjects
    assert not {item.subject for item in retain} & data.forget_subjects
    unused = {item.subject for item in data.splits["unused"]["generation"].items}
    assert not {item.subject for item in retain} & unused
    assert {bool(item.images) for item in forget} == {True, False}


def test_held_out_photos_and_phrasings_are_not_among_those_of_training(data):
    seen = {image for item in (*data.training["forget"], *data.training["retain"]) for image in item.images}
    test = data.splits["test"]["generation"].items
    assert not {image for item in test for image in item.images} & seen
    assert not {item.question for item in test} & {item.question for item in data.training["forget"]}


def test_text_tasks_name_the_person_and_show_nothing(data):
    for name, task in data.splits["forget"].items():
        named = name.endswith("text")
        assert task.modality == ("text" if named else "image")
        assert all((item.subject in item.question) == named == (not item.images) for item in task.items)


def test_classification_compares_four_options(data):
    task = data.splits["forget"]["classification"]
    assert task.kind == "choice"
    assert task.prompt.reply == "nothing"
    for item in task.items:
        assert len(set(item.choices)) == 4
        assert item.choices[item.correct] == item.answer
        assert not any(choice in item.question for choice in item.choices)
    assert len({item.correct for item in task.items}) == 4


def test_settings_and_seeds_are_other_people(data):
    forget = {
        (seed, number): {person.name for person in percent(benchmark_world(seed), number).groups["forget"]}
        for seed in (0, 1)
        for number in FORGET_PERCENT
    }
    assert data.forget_subjects == forget[0, 5]
    assert forget[0, 5] < forget[0, 10] < forget[0, 15]
    assert len(forget[0, 15]) == 30
    assert forget[1, 5] != forget[0, 5]


def test_halves_have_different_people(data):
    halves, _ = two_folds(data, 0)
    first, second = ({item.subject for item in half.splits["forget"]["cloze"].items} for half in halves)
    assert len(first) == len(second) == 5
    assert not first & second
