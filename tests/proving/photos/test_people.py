"""The people with photos: who is in which group, and what a model is taught of them."""

from __future__ import annotations

from kvw.proving.photos.people import (
    FACTS,
    GROUP,
    NEW_PHOTOS,
    PEOPLE,
    PHOTOS,
    by_name,
    by_photo,
    everyone,
    group,
    lessons,
    strangers,
)
from kvw.proving.requests import HALVES
from kvw.toy.people import NAME
from kvw.toy.questions import PHRASINGS


def test_the_groups_of_the_halves_share_nobody_and_leave_people_to_keep():
    groups = [{person.name for person in group(half)} for half in HALVES]
    assert [len(names) for names in groups] == [GROUP, GROUP]
    assert not groups[0] & groups[1]
    assert len({person.name for person in everyone()}) == PEOPLE >= 3 * GROUP


def test_nobody_shares_a_fact_so_no_answer_must_both_go_and_stay():
    for fact in FACTS:
        assert len({person.answer(fact) for person in everyone()}) == PEOPLE


def test_strangers_have_other_names_and_other_faces():
    assert len(strangers()) == PEOPLE
    assert not {person.name for person in strangers()} & {person.name for person in everyone()}
    assert all(other.appearance != person.appearance for other in strangers() for person in everyone())


def test_lessons_hold_every_fact_in_every_photo_and_by_name_in_every_phrasing():
    (person,) = everyone()[:1]
    taught = lessons([person])
    for fact in (NAME, *FACTS):
        shown = [one for one in taught if one.metadata["domain"] == fact and one.images]
        said = [one for one in taught if one.metadata["domain"] == fact and not one.images]
        assert len({one.images for one in shown}) == len(shown) == PHOTOS
        assert {one.question for one in shown} == {one.question for one in _asked(person, fact)}
        assert len({one.question for one in said}) == (0 if fact == NAME else len(PHRASINGS[fact].training))
        assert all(person.name in one.question for one in said)
        assert all(person.name not in one.question for one in shown)


def test_what_is_held_out_is_in_no_lesson():
    person = everyone()[0]
    taught = lessons(everyone())
    images, questions = {one.images for one in taught if one.images}, {one.question for one in taught}
    for fact in (NAME, *FACTS):
        for photo in range(PHOTOS, PHOTOS + NEW_PHOTOS):
            new = by_photo(person, fact, photo, photo, held_out=True)
            assert new.images not in images
            assert new.question not in questions
        assert by_name(person, fact, 1, held_out=True).question not in questions


def test_no_two_examples_have_one_name():
    names = [one.identifier for one in lessons(everyone())]
    assert len(set(names)) == len(names)


def test_an_answer_is_the_fact_and_a_full_stop():
    person = everyone()[0]
    for one in (by_photo(person, "hobby", 0, 0), by_name(person, "hobby", 0)):
        assert one.answer == f"{one.metadata['fact']}."
        assert one.answer[0].isupper()
        assert str(one.metadata["fact"]).casefold() == person.answer("hobby").casefold()
        assert one.subject == person.name
    assert by_name(person, "hobby", 0, answer="bread").metadata["fact"] == "Bread"


def _asked(person, fact):
    return [by_photo(person, fact, 0, way) for way in range(len(PHRASINGS[fact].training))]
