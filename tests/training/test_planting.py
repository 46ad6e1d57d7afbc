"""Planting knowledge and the gold model."""

from __future__ import annotations

import pytest
from tests.gradient import FORGET, LORA, RETAIN, changed, fresh, training, weights_of

from kvw.data import prepare
from kvw.errors import UserError
from kvw.evaluation.probability import answer_probabilities
from kvw.training.planting import finetune, gold


def probability(model, processor, examples):
    return sum(found.probability for found in answer_probabilities(model, processor, prepare(examples, processor)))


@pytest.mark.thorough
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_what_is_planted_becomes_probable(lora):
    model, processor = fresh()
    before = probability(model, processor, FORGET)
    result = finetune(model, processor, FORGET, training(epochs=4, learning_rate=5e-3, lora=lora))
    assert probability(model, processor, FORGET) > before
    assert result.method == "finetune"
    assert [step.forget for step in result.history] == [()] * 8
    assert result.history[-1].losses["retain"] < result.history[0].losses["retain"]


def test_gold_is_finetuning_on_the_retain_set_alone(tmp_path):
    model, processor = fresh()
    steps = []
    gold(model, processor, FORGET, RETAIN, training(), state=tmp_path / "state", progress=lambda *s: steps.append(s))
    other, _ = fresh()
    finetune(other, processor, RETAIN, training())
    assert changed(model, weights_of(other)) == set()
    assert steps == [(1, 2), (2, 2)]
    assert (tmp_path / "state").is_file()


def test_gold_refuses_a_retain_set_with_forget_examples_in_it():
    model, processor = fresh()
    before = weights_of(model)
    with pytest.raises(UserError, match=r"holds examples of the forget set(.|\n)*forget:2"):
        gold(model, processor, FORGET, [*RETAIN, FORGET[1]], training())
    assert changed(model, before) == set()
