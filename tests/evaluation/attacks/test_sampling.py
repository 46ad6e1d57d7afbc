"""Answers drawn at temperature 1: the same for a question whatever else is asked, and kept as they come."""

from __future__ import annotations

import pytest
import torch
from tests.gradient import fresh

from kvw.data import Example, prepare
from kvw.errors import UserError
from kvw.evaluation.attacks import drawn_answers
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.journal import Journal

TEXTS = [
    Example("Where does she live?", "Paris", identifier="1"),
    Example("What is the name of the author?", "Basil", identifier="2"),
]


def test_what_is_drawn_does_not_depend_on_other_questions():
    model, processor = fresh()
    prepared = prepare(TEXTS, processor, model.config)
    torch.manual_seed(1)
    before, settings = torch.random.get_rng_state(), model.generation_config
    first, second = drawn_answers(model, processor, prepared, 6, max_new_tokens=8)
    assert torch.equal(before, torch.random.get_rng_state())
    assert model.generation_config is settings
    assert (len(first), len(second)) == (6, 6)
    assert len(set(first)) > 1
    torch.manual_seed(2)  # nor on what was drawn elsewhere before
    assert drawn_answers(model, processor, prepared[::-1], 6, max_new_tokens=8) == [second, first]
    assert drawn_answers(model, processor, prepared[:1], 6, max_new_tokens=8) == [first]
    (greedy,) = generate_answers(model, processor, prepared[:1], max_new_tokens=8)
    assert set(first) != {greedy}


def test_answers_are_kept_and_of_one_number_only(tmp_path, monkeypatch):
    model, processor = fresh()
    prepared = prepare(TEXTS, processor, model.config)
    with Journal(None, tmp_path / "kept.jsonl") as journal:
        found = drawn_answers(model, processor, prepared, 2, max_new_tokens=4, journal=journal)
    monkeypatch.setattr(model, "generate", None)
    with Journal(None, tmp_path / "kept.jsonl") as journal:
        assert drawn_answers(model, processor, prepared, 2, max_new_tokens=4, journal=journal) == found
        with pytest.raises(TypeError):
            drawn_answers(model, processor, prepared, 3, max_new_tokens=4, journal=journal)


def test_none_cannot_be_drawn():
    model, processor = fresh()
    with pytest.raises(UserError, match="count must be at least 1"):
        drawn_answers(model, processor, prepare(TEXTS, processor), 0)
