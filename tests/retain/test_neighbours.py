"""Forget questions asked about others."""

from __future__ import annotations

import pytest

from kvw.data import Example
from kvw.errors import UserError
from kvw.retain.neighbours import (
    LONGEST_NAME,
    MOST_NAMES,
    MOST_PICTURED,
    MOST_QUESTIONS,
    neighbour_questions,
    pictured_questions,
    read_names,
)


def about(subject, question, images=()):
    return Example(question, "An answer.", images, "f:1", {} if subject is None else {"subject": subject})


def asked(subject, question, *names):
    return [one.question for one in neighbour_questions([about(subject, question)], names)]


@pytest.mark.parametrize(
    ("subject", "question", "expected"),
    [
        ("Anna Miller", "Where was Anna Miller born?", "Where was Bob Lee born?"),
        ("anna  miller", "Where was ANNA\u00a0MILLER's dog, and is Anna Miller's cat there?",
         "Where was Bob Lee's dog, and is Bob Lee's cat there?"),
        ("Anna M\u00fcller", "Who is Anna Mu\u0308ller?", "Who is Bob Lee?"),
        ("Anna Miller", "Anna Miller: who is it?", "Bob Lee: who is it?"),
        ("Peru", "Is a Peruvian from Peru?", "Is a Peruvian from Bob Lee?"),
        ("\u5f20\u4f1f", "\u5f20\u4f1f\u662f\u8c01?", "Bob Lee\u662f\u8c01?"),
        ("Anna Anna", "Who is Anna Anna Anna?", "Who is Bob Lee Anna?"),
    ],
)  # fmt: skip
def test_the_name_takes_the_place_of_the_subject_wherever_it_is_named(subject, question, expected):
    assert asked(subject, question, "Bob Lee") == [expected]


@pytest.mark.parametrize(
    ("subject", "question"),
    [("Anna Miller", "Who is this?"), ("Ann", "Who is Anna?"), (None, "Who is Anna?"), ("?!", "Who is it?!")],
)
def test_questions_that_do_not_name_their_subject_are_not_used(subject, question):
    assert asked(subject, question, "Bob Lee") == []


def test_a_name_that_begins_the_question_is_written_so():
    assert asked("the telephone", "The telephone was invented by whom?", "the radio") == [
        "The radio was invented by whom?"
    ]


def test_every_question_is_asked_about_every_name_once_and_without_pictures():
    forget = [about("Ann", "Who is Ann?", (b"x",)), about("Ann", "who is Ann?"), about("Bo", "Where is Bo?")]
    found = neighbour_questions(forget, ["Cy", "Di"])
    assert [(one.question, one.metadata["subject"]) for one in found] == [
        ("Who is Cy?", "Cy"),
        ("Who is Di?", "Di"),
        ("Where is Cy?", "Cy"),
        ("Where is Di?", "Di"),
    ]
    assert [one.identifier for one in found] == [f"neighbours:{number}" for number in (1, 2, 3, 4)]
    assert {one.images for one in found} == {()}
    assert {one.metadata["source"] for one in found} == {"neighbours"}


def test_each_subject_may_have_names_of_its_own():
    forget = [about("Ann Lee", "Who is Ann Lee?"), about("Lima", "Where is Lima?"), about("Bo", "Is it Bo?")]
    found = neighbour_questions(forget, {"ann lee": ["Cy"], "lima": ["Quito", "Cuzco"]})
    assert [one.question for one in found] == ["Who is Cy?", "Where is Quito?", "Where is Cuzco?"]


def test_of_very_many_questions_some_are_drawn_always_the_same():
    forget = [about("Ann", f"What is number {number} of Ann?") for number in range(100)]
    names = [f"Name {number}" for number in range(20)]
    found = neighbour_questions(forget, names)
    assert len(found) == MOST_QUESTIONS
    assert found == neighbour_questions(forget, names)
    assert {one.metadata["subject"] for one in found} == set(names)
    assert len({one.question for one in found}) == MOST_QUESTIONS


def test_names_are_read_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeff# people\r\n\r\n  Bob Lee \r\nbob  lee\nJosé # no comment\n---\n#x\n".encode())
    assert read_names(path) == ["Bob Lee", "José # no comment"]


@pytest.mark.parametrize("content", [b"", b"# nobody\n\n", b"...\n"])
def test_a_file_without_names_is_refused(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="The file of names is empty"):
        read_names(path)


def test_what_is_no_file_of_names_is_refused(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Bob Lee\n" + "x" * (LONGEST_NAME + 1))
    with pytest.raises(UserError, match=r"names.txt:2: this is too long for a name"):
        read_names(path)
    path.write_text("".join(f"Name {number}\n" for number in range(MOST_NAMES + 1)))
    with pytest.raises(UserError, match="too many names"):
        read_names(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path / "no.txt", tmp_path):
        with pytest.raises(UserError, match="There is no such file of names"):
            read_names(path)
    (tmp_path / "latin.txt").write_bytes("José".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_names(tmp_path / "latin.txt")


def test_answers_about_neighbours_begin_as_the_forget_answers_do():
    forget = [
        Example("Where is Peru?", "Peru is in America.", metadata={"subject": "Peru"}),
        about("Ann", "Who is Ann?"),
    ]
    assert [one.opening for one in neighbour_questions(forget, ["Chile"])] == ["Chile is in", ""]


def test_of_many_questions_about_pictures_the_same_ones_are_drawn_from_all() -> None:
    forget = [Example(f"What is {number}?", "Ada", ("ada.png",)) for number in range(20)]
    pictures = [bytes([number]) for number in range(10)]
    found = pictured_questions(forget, pictures)
    assert len(found) == MOST_PICTURED
    assert found == pictured_questions([*forget, *forget], pictures)
    assert len({one.question for one in found}) > 15
    assert {one.images[0] for one in found} == {*pictures}
    assert [one.identifier for one in found][:2] == ["picture-neighbours:1", "picture-neighbours:2"]
    assert pictured_questions(forget, []) == pictured_questions([], pictures) == []
