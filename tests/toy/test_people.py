"""People and portraits: the same world every time, and people who can be told apart."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kvw.errors import UserError
from kvw.toy.people import ATTRIBUTES, FIRST_NAMES, NAME, make_people
from kvw.toy.portraits import draw_portrait
from kvw.toy.questions import PHRASINGS, phrase


def test_the_same_people_come_back_without_touching_the_global_generator():
    random.seed(1)
    expected = random.random()
    random.seed(1)
    first = make_people(40, seed=0)
    assert random.random() == expected
    assert make_people(40, seed=0) == first
    assert make_people(40, seed=1) != first


@pytest.mark.thorough
@pytest.mark.parametrize("count", [40, 200])
def test_names_and_faces_are_unique_and_values_are_dealt_evenly(count):
    people = make_people(count, seed=0)
    assert len({person.name for person in people}) == count
    assert len({person.appearance for person in people}) == count
    for attribute, values in ATTRIBUTES.items():
        assert len(values) == len(set(values)) >= 20
        given = [person.answer(attribute) for person in people]
        counts = [given.count(value) for value in values]
        assert max(counts) - min(counts) <= 1
    assert people[0].answer(NAME) == people[0].name


def test_first_names_are_shared_so_that_a_first_name_alone_does_not_say_who_it_is():
    names = [person.name.split()[0] for person in make_people(40, seed=0)]
    assert len(set(names)) <= len(FIRST_NAMES) < len(names)


def test_an_impossible_number_of_people_is_refused():
    with pytest.raises(UserError, match="cannot hold"):
        make_people(10_000, seed=0)


def test_a_portrait_is_the_same_every_time_and_every_photo_differs():
    person = make_people(3, seed=0)[1]
    photos = [np.asarray(draw_portrait(person, photo, 96)) for photo in range(6)]
    assert photos[0].shape == (96, 96, 3)
    assert np.array_equal(photos[2], np.asarray(draw_portrait(person, 2, 96)))
    for index, photo in enumerate(photos):
        assert photo.std() > 10
        for other in photos[index + 1 :]:
            assert np.abs(photo.astype(int) - other.astype(int)).mean() > 5


def test_every_fact_has_enough_phrasings_and_none_is_both_trained_and_held_out():
    assert set(PHRASINGS) == {NAME, *ATTRIBUTES}
    assert len(ATTRIBUTES) >= 6
    trained = {phrase(key, index) for key, listed in PHRASINGS.items() for index in range(len(listed.training))}
    held_out = {
        phrase(key, index, held_out=True) for key, listed in PHRASINGS.items() for index in range(len(listed.held_out))
    }
    for listed in PHRASINGS.values():
        assert len(set(listed.training)) == len(listed.training) >= 4
        assert len(set(listed.held_out)) == len(listed.held_out) >= 2
        assert not set(listed.training) & set(listed.held_out)
    assert not trained & held_out
    assert phrase("job", 0, name="Mara Lind") == "What is the job of Mara Lind?"
