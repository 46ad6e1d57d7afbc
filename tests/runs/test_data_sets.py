"""What is read for a run: who is whom, what is counted, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kvw.data import Example
from kvw.data.documents import document
from kvw.errors import UserError
from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.subspace.labels import labels_of
from kvw.models.loading import Checkpoint
from kvw.runs.counts import Count
from kvw.runs.left_out import without_forgotten
from kvw.runs.overlap import overlap
from kvw.runs.request import EraseRequest, read_data
from kvw.runs.union import ForgetFile, joined

SPELLINGS = ["Anna Müller", "anna m\u00fcller ", "ANNA  MU\u0308LLER", "\u00a0\uff21nna M\u00fcller\n"]


def about(subject, question="Q", answer="A"):
    return Example(question, answer, (), "d:1", {} if subject is None else {"subject": subject})


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_subject_is_the_same_however_it_is_written(spelling):
    forget, other = [about("Anna Müller")], about("Anne Müller", "other")
    kept, left_out = without_forgotten([about(spelling, "kept?"), other], forget)
    assert kept == [other]
    assert (left_out.about_forgotten, left_out.subjects) == (1, (spelling.strip(),))
    files = [ForgetFile("a", forget), ForgetFile("b", [about(spelling)])]
    assert joined(files) == (forget, 1)
    assert len(set(labels_of([*forget, about(spelling)]).subjects)) == 1
    assert Count.of([*forget, about(spelling), other]).subjects == 2


def test_blank_subjects_are_none():
    assert [about(blank).subject_key for blank in (None, "", " \t")] == [None] * 3
    assert about(7).subject == about("7 ").subject == "7"


@pytest.mark.parametrize(("forget", "retain"), [("Anna", None), (None, "Anna"), ("Anna", " ")])
def test_subjects_in_one_set_only_are_an_error(forget, retain):
    with pytest.raises(UserError, match="Only one of the two sets names subjects") as raised:
        without_forgotten([about(retain, "other")], [about(forget)])
    there, absent = ("forget", "retain") if forget else ("retain", "forget")
    assert f"in the {there} set and in no example of the {absent} set" in str(raised.value)
    assert without_forgotten([], [about(forget)])[0] == []
    page = document("A page of nobody in particular.", "page", {})
    assert without_forgotten([about(retain, "other")], [page])[0], "documents have no subject"


def test_counts_are_said_in_words():
    pictured = Example("Q", "A", (b"x", b"y"), "d:2", {"subject": "B"})
    assert str(Count.of([about("A"), pictured, about("B")])) == "3 examples, 1 with pictures, 2 subjects"
    assert str(Count.of([about(None)])) == "1 example, 0 with pictures, no subjects named"
    assert str(Count.of([pictured])) == "1 example, 1 with pictures, 1 subject"


@pytest.mark.parametrize("named", [True, False])
def test_forget_answers_and_names_in_the_retain_set_are_counted(named):
    def example(question, answer, subject):
        return about(subject if named else None, question, answer)

    forget = [example("Who is this?", "Jody Vance", "Jody Vance"), example("What does she do?", "Judge.", "Jody Vance")]
    retain = [
        example("Who is this?", "JODY  VANCE", "Somebody"),
        example("What does Lee do?", "judge", "Lee"),
        example("Who is married to Lee?", "It is Jody Vance, the judge.", "Lee"),
        example("Is Jody Vance's sister a judge?", "No", "Kim"),
        example("Who is this?", "Jody Vancey", "Kim"),
        example("Where is Vance Jody?", "Judges", "Kim"),
    ]
    found = overlap(retain, forget)
    assert (found.of, found.answers, found.names) == (6, 2, 3)
    assert found.found == ("Jody Vance", "Judge.")
    assert "Of 6 retain examples 2 give an answer that the forget set gives too, and 3 name" in str(found)
    assert overlap(retain[4:], forget).found == ()
    assert str(overlap(retain[3:4], forget)).startswith("Of 1 retain example 0 give")
    assert "1 names a subject" in str(overlap(retain[3:4], forget))


def test_names_of_other_scripts_are_found():
    forget = [about("\u5f20\u4f1f", "\u8c01?", "\u5f20\u4f1f")]
    assert overlap([about("x", "\u5f20\u4f1f\u7684\u59d0\u59d0\u662f\u8c01?", "?")], forget).names == 1


@pytest.fixture
def request_of(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def made(forget, retain, **more):
        for name, rows in (("forget", forget), ("retain", retain)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain")}
        model = Checkpoint("m", Path(tmp_path))
        return EraseRequest(model=model, **files, out=tmp_path / "o", method="kvw", settings=KvwSettings(), **more)

    return made


def rows(people, **more):
    return [{"question": f"Who is {name}?", "answer": f"Answer {name}", "subject": name, **more} for name in people]


def test_pictures_and_subjects_of_every_split_are_counted_and_told(request_of, tmp_path):
    request = request_of(
        rows(["Ada", "Ada "], image="a.png"), rows("abcdef") + rows("a"), splits={"x": tmp_path / "retain.jsonl"}
    )
    data = read_data(request)
    assert data.counts == {"forget": Count(2, 2, 1), "retain": Count(7, 0, 6), "x": Count(7, 0, 6)}
    assert data.notes() == [
        "forget: 2 examples, 2 with pictures, 1 subject.",
        "retain: 7 examples, 0 with pictures, 6 subjects.",
        "x: 7 examples, 0 with pictures, 6 subjects.",
    ]
    assert [finding.name for finding in data.findings()] == ["few phrasings", "duplicates", "forms"]


def test_what_the_retain_set_says_about_the_forgotten_is_told(request_of):
    request = request_of(rows(["Ada"]), [*rows("abcdef"), {**rows("g")[0], "answer": "Ada"}])
    found = next(one for one in read_data(request).findings() if one.name == "answers in the retain set")
    assert str(found).startswith("Of 7 retain examples 0 give an answer that the forget set gives too, and 1 names")


@pytest.mark.parametrize(
    ("retain", "warning"),
    [
        (rows("abcde"), None),
        (rows("abcd") * 9, "The retain set has only 4 subjects"),
        (rows("a") * 9, "The retain set has only one subject:"),
    ],
)
def test_fewer_than_a_handful_of_retain_subjects_is_said(request_of, retain, warning):
    found = [str(one) for one in read_data(request_of(rows(["Ada"]), retain)).findings() if one.name == "few to retain"]
    assert [one.startswith(str(warning)) for one in found] == [True] * (warning is not None)


def test_without_subjects_examples_are_counted(request_of):
    bare = [{"question": f"Q{number}", "answer": "A"} for number in range(5)]
    found = [str(one) for one in read_data(request_of(bare[:1], bare[1:])).findings()]
    assert [one.startswith("The retain set has only 4 examples") for one in found].count(True) == 1
