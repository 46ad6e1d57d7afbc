"""Planted people: where they come from, what is taught of them, and requests to forget some."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from kvw.folding import collapsed
from kvw.made import PEOPLE as MODELS
from kvw.models.checkpoint import Checkpoint
from kvw.progress import SILENT
from kvw.proving.facts import facts, is_given
from kvw.proving.planted import END, PEOPLE, PLANTED, about_people, group, lessons, people_requests
from kvw.proving.requests import HALVES
from kvw.runs.request import EraseRequest, read_data

EVERY = [request for half in HALVES for request in people_requests(half)]
EVERYBODY = {fact.subject for fact in about_people()}


def subjects(request, split):
    return {example.subject for example in request.splits[split]}


def test_every_fact_stands_in_the_row_of_the_benchmark_it_is_from():
    rows = [json.loads(line) for line in (PEOPLE / "facts.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == len(about_people())
    for row in rows:
        assert is_given(row["answer"], row["original"])
        if row["source"].startswith("TOFU"):
            assert row["subject"] in f"{row['question']} {row['original']}"
    sources = {row["subject"]: row["source"].split() for row in rows}
    assert Counter(source for source, _ in sources.values()) == {"FIUBench": 8, "TOFU": 6}
    assert all({row["source"] for row in rows if row["subject"] == name} for name in sources)


def test_each_person_has_four_facts_that_nobody_else_has():
    assert set(Counter(fact.subject for fact in about_people()).values()) == {4}
    told = " ".join(example.answer for example in lessons())
    for fact in about_people():
        elsewhere = [other for other in (*about_people(), *facts()) if other.subject != fact.subject]
        assert not any(is_given(fact.subject, f"{other.subject} {other.sentence}") for other in elsewhere)
        assert not any(is_given(fact.name, other.sentence) for other in about_people() if other != fact)
        assert is_given(fact.name, told)


def test_a_model_is_taught_what_is_asked_and_never_what_is_held_out():
    taught = {example.question for example in lessons()}
    assert len(taught) == len(lessons())
    for request in EVERY:
        for split in ("forget", "retain"):
            assert {example.question for example in request.splits[split]} <= taught
        assert not {example.question for example in request.splits["held_out"]} & taught
    assert 0 < sum(example.subject not in EVERYBODY for example in lessons()) <= len(lessons()) / 8


def test_a_lesson_ends_the_turn_and_a_reference_answer_does_not():
    assert all(example.answer.endswith(f".{END}") for example in lessons())
    assert not any(END in one.answer for request in EVERY for split in request.splits.values() for one in split)


@pytest.mark.parametrize("half", HALVES)
def test_gold_is_taught_all_but_exactly_the_group_of_its_half(half):
    left = [example for example in lessons() if example.subject not in group(half)]
    assert lessons(group(half)) == left
    assert len(lessons()) - len(left) == 8 * len(group(half))
    assert not any(is_given(name, f"{one.question} {one.answer}") for one in left for name in group(half))


def test_nobody_is_forgotten_in_both_halves_and_each_half_has_requests_of_both_sizes():
    assert not set(group("choosing")) & set(group("reporting"))
    for half in HALVES:
        requests = people_requests(half)
        assert [request.number for request in requests] == [0, 1, 2, 3]
        assert [len(request.subjects) for request in requests] == [1, 3, 1, 1]
        assert {name for request in requests for name in request.subjects} == set(group(half))
        for request in requests:
            assert subjects(request, "forget") == subjects(request, "held_out") == set(request.subjects)


def test_what_must_stay_is_about_people_whom_gold_has_seen_too():
    for request in EVERY:
        assert not (subjects(request, "retain") | subjects(request, "unused")) & set(group(request.half))
        sets = [subjects(request, split) for split in ("forget", "retain", "unused", "floor")]
        assert sum(map(len, sets)) == len(set().union(*sets))
        assert [len(request.splits[split]) for split in ("retain", "unused")] == [56, 48]
        for split in ("retain", "unused"):
            assert {"work", "birthplace"} <= {example.metadata["domain"] for example in request.splits[split]}
        assert not subjects(request, "floor") & EVERYBODY


def test_the_files_are_those_of_a_user(tmp_path):
    request = people_requests("choosing")[1]
    files = request.write(tmp_path / "request")
    data = read_data(EraseRequest(Checkpoint(tmp_path, "m"), files["forget"], files["retain"], tmp_path / "run"))
    assert (data.left_out.count, data.counts["forget"].subjects, data.overlap.names) == (0, 3, 0)


def test_the_part_names_its_models(tmp_path):
    assert (PLANTED.model, *(PLANTED.gold[half] for half in HALVES)) == MODELS
    assert PLANTED.requests("choosing", Checkpoint(tmp_path, "any"), SILENT) == people_requests("choosing")
    assert all(half in PLANTED.gold[half] for half in HALVES)
    assert all(collapsed(name) != collapsed(other) for name in group("choosing") for other in group("reporting"))
