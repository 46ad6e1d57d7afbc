"""What is gathered for a forget set, from which sources, and what is left out."""

from __future__ import annotations

from functools import cache

import pytest

from kvw.data import Example
from kvw.errors import UserError
from kvw.methods.subspace.labels import Labels, labels_of
from kvw.retain import SOURCES, sources
from kvw.retain.everyday import everyday_questions
from kvw.retain.pictures import picture_questions
from kvw.retain.question import Question
from kvw.retain.texts import plain_texts

FORGET = [Example("What is the capital of Peru?", "The capital of Peru is Lima.", (), "f:1", {"subject": "Peru"})]
FACTS = [
    Question(f"Where is {name}?", (), f"facts:{number}", {"source": "facts", "subject": name})
    for number, name in enumerate(["Chile", "Peru", "Greater Peru", "Lima", "Cuba"], start=1)
]


@cache
def drawn():
    """The pictures, which are the same at every call, drawn once for all tests."""
    return picture_questions()


@pytest.fixture(autouse=True)
def _drawn_once(monkeypatch):
    monkeypatch.setattr(sources, "picture_questions", drawn)


class Calls(list):
    """What is asked, call by call, and the longest answer of each source."""


@pytest.fixture
def asked(monkeypatch):
    """What is asked, call by call; the answers are made up."""
    calls, lengths = Calls(), {}
    calls.lengths = lengths

    def answered(loaded, questions, *, max_new_tokens, progress=None):
        calls.append(list(questions))
        lengths[questions[0].metadata["source"]] = max_new_tokens
        if progress is not None:
            progress(len(questions), len(questions))
        answers = {"How do I boil an egg?": "As they do it in Lima.", "What is the capital of Chile?": "Santiago."}
        return [one.answered(answers.get(one.question, "I do not know.")) for one in questions[:-1]] + [
            questions[-1].answered("The last one knows nothing.")
        ]

    monkeypatch.setattr(sources, "self_answered", answered)
    monkeypatch.setattr(sources, "usable", lambda examples, loaded: examples)
    monkeypatch.setattr(sources, "fact_questions", lambda loaded, progress: FACTS)
    monkeypatch.setattr(sources, "neighbour_names", lambda loaded, forget, progress: {"peru": ["Cuba", "Mali"]})
    return calls


def gathered(**changes):
    settings = {"sources": SOURCES, "names": ["Chile", "Bolivia"], "takes_images": True} | changes
    return {one.name: one for one in sources.gather(None, FORGET, **settings)}


@pytest.mark.thorough
def test_all_sources_in_their_order_with_what_is_left_out_counted(asked):
    found = gathered()
    assert tuple(found) == SOURCES[:-1]  # no forget question shows a picture
    assert (len(found["everyday"].examples), found["everyday"].left_out) == (len(everyday_questions()) - 1, 1)
    assert "everyday:1" not in {one.identifier for one in found["everyday"].examples}
    assert (len(found["text"].examples), found["text"].left_out) == (len(plain_texts()), 0)
    assert (len(found["pictures"].examples), found["pictures"].left_out) == (len(drawn()), 0)
    assert [one.question for one in found["neighbours"].examples] == [
        "What is the capital of Chile?",
        "What is the capital of Bolivia?",
    ]
    assert [one.subject for one in found["facts"].examples] == ["Chile", "Cuba"]
    assert found["facts"].left_out == 3


def test_forget_questions_that_show_a_picture_are_asked_about_the_drawn_ones(asked):
    forget = [Example("Who is this?", "Ada.", (b"ada",), "f:1", {"subject": "Ada"})]
    settings = {"sources": ["picture-neighbours"], "takes_images": True}
    (found,) = sources.gather(None, forget, **settings)
    assert {one.question for one in found.everything} == {"Who is this?"}
    assert {one.images[0] for one in found.everything} == {one.images[0] for one in drawn()}
    assert len(found.everything) == len({one.subject for one in found.everything}) == 26
    assert asked.lengths == {"picture-neighbours": sources.SHORT_ANSWER}
    assert sources.gather(None, forget, **settings | {"takes_images": False}) == []
    two = [Example("Who are they?", "Ada.", (b"ada", b"bob"))]
    assert sources.gather(None, two, **settings) == []
    (longest,) = sources.stand_ins(None, forget, **settings)
    assert len(longest.examples) == 26


def test_what_is_asked_about_a_part_of_a_subjects_name_is_left_out(asked):
    forget = [Example("Who invented the radio?", "He did.", (), "f:1", {"subject": "the radio"})]
    found = sources.gather(None, forget, sources=["neighbours"], names=["radio", "glass", "tea"], takes_images=False)
    assert [one.subject for one in found[0].examples] == ["glass", "tea"]


def test_without_names_the_model_names_neighbours(asked):
    found = gathered(sources=["neighbours"], names=None)
    assert [one.question for one in found["neighbours"].examples] == [
        "What is the capital of Cuba?",
        "What is the capital of Mali?",
    ]


def test_facts_and_neighbours_are_answered_shortly(asked):
    gathered()
    assert asked.lengths == {"everyday": 32, "pictures": 32, "facts": 16, "neighbours": 16}


def test_everyday_questions_are_asked_whatever_is_to_be_forgotten(asked):
    gathered()
    everyday = next(one for one in asked if one[0].metadata["source"] == "everyday")
    assert [one.question for one in everyday] == everyday_questions()
    assert everyday[11].identifier == "everyday:12"
    assert everyday[11].metadata == {"source": "everyday", "subject": "everyday 12"}


def test_every_example_has_its_source_and_a_subject(asked):
    for name, source in gathered().items():
        assert {one.metadata["source"] for one in source.examples} == {name}
        labels = labels_of(source.examples)
        assert labels != Labels()
        assert len(set(labels.subjects)) > 1


@pytest.mark.parametrize("name", SOURCES[:-1])
def test_a_source_alone(asked, name):
    assert list(gathered(sources=[name])) == [name]


def test_no_source_is_nothing(asked):
    assert gathered(sources=[]) == {}
    assert asked == []


@pytest.mark.thorough
def test_without_images_no_pictures_and_without_names_no_neighbours(asked):
    assert list(gathered(takes_images=False)) == ["everyday", "facts", "text", "neighbours"]
    assert list(gathered(names=[])) == ["everyday", "pictures", "facts", "text"]


def test_another_source_is_refused(asked):
    with pytest.raises(UserError, match="no such source") as error:
        gathered(sources=["text", "internet"])
    assert error.value.found == "internet"
    assert asked == []


def test_what_cannot_be_used_is_counted(monkeypatch):
    monkeypatch.setattr(
        sources, "self_answered", lambda _, questions, **__: [one.answered("Well.") for one in questions[3:]]
    )
    monkeypatch.setattr(sources, "usable", lambda examples, loaded: examples[:-2])
    found = gathered(sources=["everyday", "text"])
    assert (found["everyday"].unusable, found["text"].unusable) == (3, 2)
    assert (len(found["everyday"].examples), found["everyday"].left_out) == (len(everyday_questions()) - 3, 0)
    assert (len(found["text"].examples), found["text"].left_out) == (len(plain_texts()) - 2, 0)


def test_a_neighbour_may_share_a_name_with_the_subject_and_others_may_not(asked):
    forget = [Example("Who is Anna Miller?", "She is a nurse.", (), "f:1", {"subject": "Anna Miller"})]
    found = sources.gather(None, forget, sources=["neighbours"], names=["Anna Schmidt"], takes_images=False)
    assert [one.question for one in found[0].examples] == ["Who is Anna Schmidt?"]


def test_progress_goes_on_from_source_to_source(asked):
    told = []
    gathered(progress=lambda *numbers: told.append(numbers))
    totals = [len(everyday_questions()), len(drawn()), len(FACTS), 2]
    assert told == [(sum(totals[: place + 1]), sum(totals)) for place in range(4)]


def test_progress_while_names_are_looked_for_says_that_the_total_is_unknown(asked, monkeypatch):
    told = []
    monkeypatch.setattr(sources, "fact_questions", lambda loaded, progress: progress(1, 2) or FACTS)
    gathered(sources=["facts"], progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 0), (len(FACTS), len(FACTS))]


def test_stand_ins_are_as_many_and_nothing_is_asked(asked):
    settings = {"sources": SOURCES, "names": ["Chile", "Bolivia"], "takes_images": True}
    found = {one.name: one for one in sources.stand_ins(None, FORGET, **settings)}
    assert asked == []
    counted = {one.name: len(one.everything) for one in gathered().values()}
    assert {name: len(one.examples) for name, one in found.items()} == {
        **counted,
        "facts": (sources.NAMES_OF_A_GAP + 1) * len(sources.fact_gaps()),
    }
    without = sources.stand_ins(None, FORGET, **settings | {"names": None, "sources": ["neighbours"]})
    assert len(without[0].examples) == sources.MOST_NAMES


def test_a_neighbour_of_whom_the_model_says_the_same_is_left_out(monkeypatch):
    forget = [Example("Which unit has time?", "The unit of time is the second.", (), "f:1", {"subject": "time"})]
    answers = {"mass": "The unit of mass is the gram.", "rotation": "The unit of rotation is the second."}
    monkeypatch.setattr(
        sources,
        "self_answered",
        lambda _, asked, **__: [one.answered(answers[one.metadata["subject"]]) for one in asked],
    )
    monkeypatch.setattr(sources, "usable", lambda examples, loaded: examples)
    (found,) = sources.gather(None, forget, sources=["neighbours"], names=list(answers), takes_images=False)
    assert [one.subject for one in found.examples] == ["mass"]
    assert [one.subject for one in found.excluded] == ["rotation"]
