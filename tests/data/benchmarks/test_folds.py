import pytest

from kvw.data.benchmarks import two_folds


@pytest.fixture(scope="module")
def data(mllmu):
    return mllmu


def people(data, split):
    return {item.subject for task in data.splits[split].values() for item in task.items}


def identifiers(data):
    return {item.identifier for tasks in data.splits.values() for task in tasks.values() for item in task.items}


@pytest.mark.thorough
def test_the_halves_are_disjoint_in_people_and_whole_together(data):
    (validation, test), (other_validation, other_test) = two_folds(data)
    assert (other_validation, other_test) == (test, validation)
    assert identifiers(validation) | identifiers(test) == identifiers(data)
    assert not identifiers(validation) & identifiers(test)
    for split, count in {"forget": 1, "test": 1, "retain": 2, "celebrity": 1}.items():
        assert [len(people(half, split)) for half in (validation, test)] == [count, count]
        assert not people(validation, split) & people(test, split)


@pytest.mark.thorough
def test_a_person_is_in_one_half_in_all_splits(data):
    for half in two_folds(data)[0]:
        assert people(half, "forget") == people(half, "test")


def test_the_request_to_forget_stays_the_same(data):
    for half in two_folds(data)[0]:
        assert half.training == data.training


def test_the_lot_follows_the_seed(data):
    halves = [frozenset(people(two_folds(data, seed)[0][0], "retain")) for seed in (0, 0, 1, 2, 3)]
    assert halves[0] == halves[1]
    assert len(set(halves)) > 1
