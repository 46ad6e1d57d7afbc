"""What a model says about a name, and which of it is taken."""

from __future__ import annotations

import pytest
import torch

from kvw.building import from_model
from kvw.building.from_model import Known, ask_about, taken
from kvw.building.phrasings import phrasings
from kvw.data import Example
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint

WORDS = phrasings("en")
QUESTIONS = ("Who wrote it?", "Name the writer of it.", "By whom is it?")


@pytest.fixture(scope="module")
def loaded(saved):
    return Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")


def known(again, answer="Moby-Dick was written by Melville."):
    return Known("Moby-Dick", QUESTIONS, answer, again, 8)


def test_what_recurs_is_taken_in_all_phrasings_some_of_them_held_out():
    rows = taken([known(4), known(3, "It was Poe.")])
    assert [row.question for row in rows.used + rows.held_out] == list(QUESTIONS)
    assert len(rows.held_out) == 1
    assert {(row.answer, row.subject) for row in rows.used} == {("Moby-Dick was written by Melville.", "Moby-Dick")}


def test_the_user_decides_if_asked_to():
    shown = []
    rows = taken([known(8), known(0, "It was Poe.")], lambda one: shown.append(one) or not one.recurs)
    assert len(shown) == 2
    assert {row.answer for row in rows.used} == {"It was Poe."}


def test_a_drawn_answer_counts_if_it_says_the_same(loaded, monkeypatch):
    answers = {"known for": "Moby-Dick is known for its white whale. It is long.", "Who is": "It is what it is."}

    def answered(_, questions, **more):
        pairs = [(one, answer) for one in questions for part, answer in answers.items() if part in one.question]
        return [Example(one.question, answer, (), one.identifier, one.metadata) for one, answer in pairs]

    drawn = ["A white whale.", "The whale, which is white.", "Its long chapters.", "Queequeg."]
    monkeypatch.setattr(from_model, "self_answered", answered)
    monkeypatch.setattr(from_model, "_drawn", lambda *_: drawn)
    told = []
    (found,) = ask_about(loaded, ["Moby-Dick"], WORDS, lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]
    assert (found.name, found.again, found.samples) == ("Moby-Dick", 2, 4)
    assert found.answer == "Moby-Dick is known for its white whale.", "the first sentence"
    assert found.questions[0] == "What is Moby-Dick known for?"
    assert found.recurs


def test_answers_are_drawn_by_one_seed_and_differ(loaded):
    (item,) = loaded.prepare([Example("Who is this?", "-")])
    state = torch.random.get_rng_state()
    first = from_model._drawn(loaded, item)
    assert len(first) == from_model.SAMPLES
    assert len(set(first)) > 1, "drawn, and not greedy"
    torch.manual_seed(99)
    assert from_model._drawn(loaded, item) == first
    torch.random.set_rng_state(state)
