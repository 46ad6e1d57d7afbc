"""Requests to forget people with photos: what is in which set, and that gold models never saw what they forget."""

from __future__ import annotations

from functools import cache

import pytest

from kvw.data import read_examples
from kvw.proving.photos.part import MEMBERS, PHOTOGRAPHED, photo_requests
from kvw.proving.photos.people import FACTS, everyone, group, lessons
from kvw.proving.requests import HALVES


@cache
def made():
    """The requests of each half; made when a test asks for them, and once."""
    return {half: photo_requests(half) for half in HALVES}


def every():
    """Those of both halves."""
    return [request for requests in made().values() for request in requests]


def subjects(request, split):
    return {example.subject for example in request.splits[split]}


@pytest.mark.thorough
def test_each_half_forgets_one_two_and_three_people_of_its_own_group():
    for half, requests in made().items():
        assert [request.number for request in requests] == list(range(len(MEMBERS)))
        assert {len(request.subjects) for request in requests} == {1, 2, 3}
        assert {name for request in requests for name in request.subjects} == {person.name for person in group(half)}


def test_the_sets_of_a_request_are_about_different_people():
    for request in every():
        sets = [subjects(request, split) for split in ("forget", "retain", "unused", "floor")]
        assert sum(map(len, sets)) == len(set().union(*sets))
        assert subjects(request, "forget") == subjects(request, "held_out") == set(request.subjects)


def test_what_must_stay_is_known_to_the_gold_model_too():
    for request in every():
        forgotten = {person.name for person in group(request.half)}
        assert not forgotten & (subjects(request, "retain") | subjects(request, "unused"))


def test_every_fact_is_asked_by_photo_and_by_name_in_every_set():
    for request in every():
        for split, examples in request.splits.items():
            for by_photo in (True, False):
                asked = {one.metadata["domain"] for one in examples if bool(one.images) == by_photo}
                assert asked == ({"name", *FACTS} if by_photo else set(FACTS)), split


def test_held_out_photos_and_phrasings_are_in_no_lesson_and_what_is_forgotten_is_in_one():
    taught = lessons(everyone())
    images, questions = {one.images for one in taught if one.images}, {one.question for one in taught}
    for request in every():
        assert not {one.images for one in request.splits["held_out"] if one.images} & images
        assert not {one.question for one in request.splits["held_out"]} & questions
        assert {(one.question, one.images) for one in request.splits["forget"] if not one.images} <= {
            (one.question, one.images) for one in taught
        }
        assert {one.images for one in request.splits["forget"] if one.images} <= images


def test_the_floor_has_answers_of_the_forgotten_to_questions_about_strangers():
    for request in every():
        answers = {one.answer for one in request.splits["forget"]}
        assert {one.answer for one in request.splits["floor"]} == answers
        assert not subjects(request, "floor") & {person.name for person in everyone()}


@pytest.mark.parametrize("half", HALVES)
def test_the_files_are_read_again_with_their_photos(half, tmp_path):
    request = made()[half][0]
    files = request.write(tmp_path)
    for split, file in files.items():
        read = read_examples(file)
        assert [(one.question, one.answer, len(one.images)) for one in read] == [
            (one.question, one.answer, len(one.images)) for one in request.splits[split]
        ]


def test_the_part_names_its_models():
    assert PHOTOGRAPHED.model == "photos:planted"
    assert PHOTOGRAPHED.gold == {half: f"photos:gold-{half}" for half in HALVES}
