"""What the solve gets and what edits are judged by."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import kvw.runs.material as module
from kvw.data import Example
from kvw.data.shared import is_shared
from kvw.methods.registry import get_method
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.retain.sources import Source
from kvw.runs.earlier import NOBODY
from kvw.runs.left_out import LeftOut
from kvw.runs.material import MOST_HELD_OUT, gather_material, of_all_subjects, spread


def shared(name, count):
    return [
        Example(
            f"{name} {row}?", "yes", identifier=f"{name}:{row}", metadata={"source": name, "subject": f"{name} {row}"}
        )
        for row in range(1, count + 1)
    ]


FORGET = [Example(f"View {row} of Ann?", "She bakes.", metadata={"subject": "Ann"}) for row in range(3)]
OWN = [
    Example(f"Who is {row}?", f"Number {row}.", identifier=f"r:{row}", metadata={"subject": f"P{row}"})
    for row in range(5)
]


def material(monkeypatch, *sources, retain=(), speaks=True, statistics=None, settings=None):
    monkeypatch.setattr(module, "gather", lambda *_, **__: list(sources))
    data = SimpleNamespace(
        forget=FORGET,
        retain=list(retain),
        retain_statistics=statistics,
        neighbours=None,
        left_out=LeftOut(),
        earlier=NOBODY,
    )
    loaded = SimpleNamespace(model=SimpleNamespace(config=None))
    monkeypatch.setattr(module, "is_text_model", lambda _: True)
    request = SimpleNamespace(
        sources=("everyday",), settings=settings or SubspaceSettings(), made_by=get_method("subspace")
    )
    return gather_material(SimpleNamespace(loaded=loaded, data=data, request=request), speaks=speaks)


def test_each_part_is_in_the_solve_or_judges_and_never_both(monkeypatch):
    found = material(monkeypatch, Source("everyday", shared("everyday", 10), []), retain=OWN)
    assert [one.question for one in found.forget] == ["View 0 of Ann?", "View 1 of Ann?"]
    assert [one.question for one in found.judged["held-out forget"]] == ["View 2 of Ann?"]
    assert [one.identifier for one in found.judged["held-out everyday"]] == ["everyday:5", "everyday:10"]
    assert [one.subject for one in found.judged["held-out retain"]] == ["P4"]
    solved = {one.question for one in found.retain}
    assert not solved & {one.question for name in found.must_stay for one in found.judged[name]}
    assert len(found.retain) == 8 + 4
    assert found.must_stay == ["plain text", "held-out retain", "held-out everyday"]


@pytest.mark.parametrize(
    ("settings", "held_out"),
    [
        ({}, True),
        ({"held_out_ratio": 1.5}, False),
        ({"shrinkage": "cross-validated"}, False),
    ],
)
def test_a_method_that_holds_views_out_itself_gets_all(monkeypatch, settings, held_out):
    found = material(monkeypatch, retain=OWN, settings=SubspaceSettings(**settings))
    assert ("held-out forget" in found.judged) == held_out
    assert len(found.forget) == 3 - held_out


def test_text_that_is_held_out_is_the_plain_text(monkeypatch):
    found = material(
        monkeypatch, Source("everyday", shared("everyday", 10), []), Source("text", shared("text", 10), [])
    )
    assert [one.identifier for one in found.judged["plain text"]] == ["text:3", "text:6", "text:9"]
    assert found.must_stay == ["plain text", "held-out everyday"]


def test_more_plain_text_judges_than_questions_of_any_source(monkeypatch):
    found = material(
        monkeypatch, Source("everyday", shared("everyday", 300), []), Source("text", shared("text", 210), [])
    )
    assert (len(found.judged["plain text"]), len(found.judged["held-out everyday"])) == (70, MOST_HELD_OUT)


def test_the_same_is_held_out_whatever_is_excluded(monkeypatch):
    every = shared("everyday", 10)
    whole = material(monkeypatch, Source("everyday", every, []))
    some = material(monkeypatch, Source("everyday", every[2:], every[:2]))
    assert [one.identifier for one in some.judged["held-out everyday"]] == ["everyday:5", "everyday:10"]
    assert {one.identifier for one in whole.retain} - {one.identifier for one in some.retain} == {
        "everyday:1",
        "everyday:2",
    }
    assert [one.identifier for one in some.retain.excluded] == ["everyday:1", "everyday:2"]


def test_what_is_left_out_of_the_neighbours_is_nobodys_concern(monkeypatch):
    neighbours = shared("neighbours", 4)
    found = material(monkeypatch, Source("neighbours", neighbours[1:], neighbours[:1]))
    assert (len(found.retain), found.retain.excluded) == (2, ())


def test_shared_examples_weigh_the_same_whoever_they_are_about(monkeypatch):
    facts = [
        Example(f"Fact {row}?", "yes", identifier=f"facts:{row}", metadata={"source": "facts", "subject": "P1"})
        for row in range(3)
    ]
    found = material(monkeypatch, Source("facts", facts, []), retain=OWN)
    assert [one.subject for one in found.retain if "source" in one.metadata] == ["facts:0", "facts:1", "facts:2"]


def test_a_model_that_writes_no_english_is_asked_nothing_shipped(monkeypatch):
    found = material(monkeypatch, Source("everyday", shared("everyday", 10), []), retain=OWN, speaks=False)
    assert found.must_stay == ["held-out retain"]
    assert len(found.retain) == 4


def test_few_subjects_judge_with_what_the_solve_has_seen(monkeypatch):
    found = material(monkeypatch, retain=OWN[:2], speaks=False)
    assert (found.must_stay, len(found.retain)) == (["retain"], 2)


def test_with_a_statistics_file_all_sources_judge(monkeypatch):
    found = material(monkeypatch, Source("everyday", shared("everyday", 10), []), statistics=object())
    assert len(found.judged["held-out everyday"]) == 10
    assert not found.retain


def test_a_small_retain_file_judges_beside_plain_text(monkeypatch):
    found = material(monkeypatch, Source("text", shared("text", 10), []), retain=OWN[:2])
    assert found.must_stay == ["plain text", "retain"]
    assert [one.subject for one in found.judged["retain"]] == ["P0", "P1"]


def test_what_is_excluded_judges_nothing(monkeypatch):
    every = shared("everyday", 10)
    found = material(monkeypatch, Source("everyday", every[:4] + every[5:], every[4:5]))
    assert [one.identifier for one in found.judged["held-out everyday"]] == ["everyday:10"]


def test_a_column_named_source_does_not_make_examples_shipped_ones(monkeypatch):
    own = [Example(f"Who is {row}?", "He.", metadata={"subject": f"P{row}", "source": "text"}) for row in range(5)]
    found = material(monkeypatch, retain=own, speaks=False)
    assert found.must_stay == ["held-out retain"]
    assert [one.subject for one in found.retain] == ["P0", "P1", "P2", "P3"]
    assert not any(map(is_shared, found.retain))


def test_examples_without_a_subject_get_one_of_their_own(monkeypatch):
    nameless = [Example(f"Question {row}?", "yes") for row in range(3)]
    found = material(monkeypatch, Source("everyday", shared("everyday", 5), []), retain=nameless)
    subjects = [one.subject for one in found.retain]
    assert None not in subjects
    assert len(set(subjects)) == len(subjects)


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(3, 5, [0, 1, 2]), (10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4])]
)
def test_spread_takes_from_all_over(count, most, expected):
    examples = [Example(str(number), "a") for number in range(count)]
    assert spread(examples, most) == [examples[number] for number in expected]


@pytest.mark.parametrize("rows", ["by subject", "by phrasing"])
def test_spread_takes_every_subject_and_every_phrasing_in_whatever_order_they_come(rows):
    places = [(subject, phrasing) for subject in range(16) for phrasing in range(4)]
    if rows == "by phrasing":
        places.sort(key=lambda place: place[1])
    examples = [Example(f"{phrasing}?", "a", metadata={"subject": str(subject)}) for subject, phrasing in places]
    for most in (16, 32):
        found = of_all_subjects(examples, most)
        assert len(found) == most
        assert [sum(one.subject == str(subject) for one in found) for subject in range(16)] == [most // 16] * 16
        assert {one.question for one in found} == {"0?", "1?", "2?", "3?"}
        assert found == [one for one in examples if one in found]
