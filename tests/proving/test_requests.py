"""Requests are the same for everybody, keep their sets apart, and are files that ``kvw erase`` takes."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from kvw.data import Example, read_examples
from kvw.errors import UserError
from kvw.models.checkpoint import Checkpoint
from kvw.proving.facts import facts, is_given
from kvw.proving.photos.part import photo_requests
from kvw.proving.planted import people_requests
from kvw.proving.requests import HALVES, PLAN, RETAINED, UNUSED, Request, make_requests
from kvw.runs.request import EraseRequest, read_data

KNOWN = facts()[::2]


@cache
def made():
    """The requests of each half; made when a test asks for them, and once."""
    return {half: make_requests(KNOWN, half) for half in HALVES}


def every():
    """Those of both halves."""
    return [request for requests in made().values() for request in requests]


def subjects(request, split):
    return {example.subject_key for example in request.splits[split]}


@pytest.mark.thorough
def test_there_are_requests_of_all_sizes_in_both_halves():
    assert len(every()) >= 24
    for requests in made().values():
        assert Counter(len(request.subjects) for request in requests) == PLAN
        assert [request.number for request in requests] == list(range(len(requests)))
        assert {len(request.subjects) for request in requests[:3]} == {1, 3, 10}


def test_a_half_has_as_many_requests_as_its_page_says_and_with_those_to_planted_models_forty():
    many = sum(PLAN.values())
    assert f"{many} in a half" in (Path(__file__).parents[2] / "docs/proving-ground.md").read_text()
    assert many + len(people_requests("reporting")) + len(photo_requests("reporting")) >= 40


@pytest.mark.thorough
def test_no_subject_is_forgotten_twice():
    forgotten = [subject for request in every() for subject in subjects(request, "forget")]
    assert len(forgotten) == len(set(forgotten)) == sum(size * count for size, count in PLAN.items()) * 2


def test_requests_of_several_subjects_are_of_one_kind_and_of_many():
    for size in (3, 10):
        kinds = [
            {fact.domain.name for fact in KNOWN if fact.subject in request.subjects}
            for request in every()
            if len(request.subjects) == size
        ]
        assert min(map(len, kinds)) <= 3
        assert max(map(len, kinds)) >= min(size, 8)


def test_the_sets_of_a_request_are_about_different_subjects():
    for request in every():
        sets = [subjects(request, split) for split in ("forget", "retain", "unused", "floor")]
        assert sum(map(len, sets)) == len(set().union(*sets))
        assert subjects(request, "held_out") == subjects(request, "forget")
        assert (len(subjects(request, "retain")), len(subjects(request, "unused"))) == (RETAINED, UNUSED)


def test_what_stays_names_nothing_that_goes():
    for request in every():
        forget = [(example.subject, example.metadata["fact"]) for example in request.splits["forget"]]
        for example in (*request.splits["retain"], *request.splits["unused"]):
            for name in {name for pair in forget for name in pair}:
                assert not is_given(name, f"{example.subject} {example.answer}")


def test_all_that_is_known_of_a_subject_is_forgotten_in_every_way():
    for request in every():
        known = [fact for fact in KNOWN if fact.subject in request.subjects]
        assert len(request.splits["forget"]) == 4 * len(known)
        assert len(request.splits["held_out"]) == 2 * len(known)
        questions = {split: {one.question for one in request.splits[split]} for split in request.splits}
        assert not questions["forget"] & questions["held_out"]
        assert not questions["forget"] & questions["floor"]
        told = {split: {one.metadata["fact"] for one in request.splits[split]} for split in request.splits}
        assert told["forget"] == told["held_out"] == told["floor"]


def test_unused_subjects_are_of_the_same_kinds_and_of_others():
    for request in every():
        kinds = {example.metadata["domain"] for example in request.splits["forget"]}
        unused = {example.metadata["domain"] for example in request.splits["unused"]}
        assert unused & kinds
        assert unused - kinds


@pytest.mark.thorough
def test_equal_facts_give_equal_requests():
    assert make_requests(list(KNOWN), "choosing") == made()["choosing"]


def test_the_files_are_those_of_a_user(tmp_path):
    request = next(one for one in every() if len(one.subjects) == 3)
    files = request.write(tmp_path / "request")
    assert {split: len(read_examples(file)) for split, file in files.items()} == {
        split: len(examples) for split, examples in request.splits.items()
    }
    model = Checkpoint(Path("model"), "model")
    data = read_data(EraseRequest(model, files["forget"], files["retain"], tmp_path / "run"))
    assert data.left_out.count == 0
    assert data.counts["forget"].subjects == 3
    assert data.overlap.names == 0


def test_too_few_facts_are_told():
    with pytest.raises(UserError, match="too few") as error:
        make_requests(KNOWN[:20], "reporting")
    assert "10 subjects in this half" in error.value.found


def test_images_are_named_in_the_files(tmp_path):
    file = tmp_path / "face.png"
    Image.new("RGB", (4, 4), "red").save(file)
    splits = {
        "forget": [Example("Who?", "Ada", images=(file,), metadata={"subject": "Ada", "fact": "Ada"})],
        "retain": [Example("Who?", "Tom", images=(file.read_bytes(),), metadata={"subject": "Tom", "fact": "Tom"})],
    }
    files = Request("choosing", 0, ("Ada",), splits).write(tmp_path / "request")
    for split, examples in splits.items():
        (example,) = read_examples(files[split])
        (image,) = example.images
        assert image.read_bytes() == file.read_bytes()
        assert (example.question, example.answer, example.subject) == ("Who?", examples[0].answer, examples[0].subject)
