"""Training an unlearned model: how much, on whom, and what it leaves behind."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tests.gradient import FORGET, RETAIN, changed, fresh, training, weights_of

from kvw.data import Example, answer_batch, prepare
from kvw.errors import UserError
from kvw.evaluation.attacks import relearned, relearning_settings, split_by_subject
from kvw.evaluation.attacks.relearning import _rounds
from kvw.training.answers import answers
from kvw.training.settings import LoraSettings


def loss(model, processor, examples):
    with torch.no_grad():
        return float(answers(model, answer_batch(prepare(examples, processor), processor)).losses.mean())


def people(count, each=2):
    return [
        Example(f"question {place}?", "answer", (), f"{one}:{place}", {"subject": f"person {one}"})
        for place in range(each)
        for one in range(count)
    ]


def test_no_steps_no_change():
    model, processor = fresh()
    before = weights_of(model)
    with relearned(model, processor, RETAIN, 0, training()) as losses:
        assert losses == ()
        assert changed(model, before) == set()


@pytest.mark.thorough
def test_more_steps_lower_the_loss_and_each_number_of_steps_can_be_repeated():
    model, processor = fresh()
    found, weights = [loss(model, processor, RETAIN)], []
    for steps in (2, 8, 8):
        with relearned(model, processor, RETAIN, steps, training()) as losses:
            assert len(losses) == steps
            found.append(loss(model, processor, RETAIN))
            weights.append(weights_of(model))
    assert found[0] > found[1] > found[2] == found[3]
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])
    assert losses[-1] < losses[0]


def test_examples_come_equally_often_in_whole_rounds():
    assert Counter(_rounds(4, 11, 0)).most_common()[-1][1] == 2
    assert sorted(_rounds(4, 8, 0)[:4]) == [0, 1, 2, 3]
    assert len(_rounds(4, 3, 0)) == len(set(_rounds(4, 3, 0))) == 3
    assert _rounds(9, 9, 0) != _rounds(9, 9, 1)


def test_by_default_the_language_part_is_trained_in_full_in_any_dtype():
    model, processor = fresh()
    settings = relearning_settings(model)
    assert (settings.lora, settings.precision, settings.learning_rate) == (None, "as loaded", 1e-5)
    before = weights_of(model)
    with relearned(model, processor, RETAIN, 1) as _:
        found = changed(model, before)
    assert found
    assert all("language_model" in name or name == "lm_head.weight" for name in found)
    small, _ = fresh(dtype=torch.bfloat16)
    settings = relearning_settings(small, 1e-2)
    assert (settings.precision, settings.learning_rate) == ("bf16", 1e-2)
    before = weights_of(small)
    with relearned(small, processor, RETAIN, 1, settings):
        assert changed(small, before)
        assert {value.dtype for value in small.parameters()} == {torch.bfloat16}
    assert changed(small, before) == set()


def test_adapters_are_merged_for_the_block_and_gone_after_it():
    model, processor = fresh()
    before = weights_of(model)
    with relearned(model, processor, RETAIN, 2, training(lora=LoraSettings(rank=2, dropout=0.0))):
        assert changed(model, before)
    assert changed(model, before) == set()


def test_nothing_to_relearn_from_is_an_error():
    model, processor = fresh()
    for examples, steps in (([], 1), (FORGET, -1)):
        with pytest.raises(UserError, match="takes a number of steps"), relearned(model, processor, examples, steps):
            pass


def test_the_split_is_by_subject_and_seeded():
    examples = people(9)
    halves = split_by_subject(examples, seed=1)
    subjects = [{example.metadata["subject"] for example in half} for half in halves]
    assert not subjects[0] & subjects[1]
    assert sorted(map(len, subjects)) == [4, 5]
    assert sorted(map(len, halves)) == [8, 10]
    assert split_by_subject(examples, seed=1) == halves
    assert split_by_subject(examples[::-1], seed=1) == tuple(half[::-1] for half in halves)
    assert split_by_subject(examples, seed=2) != halves


def test_nobody_is_in_both_halves_under_two_spellings():
    written = [
        Example("Q", "A", (), str(place), {"subject": one})
        for place, one in enumerate(("Zoë", "zoe\u0308", "Bo", "BO "))
    ]
    for examples in (written, written[::-1]):
        halves = split_by_subject(examples, 0)
        assert sorted([sorted(one.identifier for one in half) for half in halves]) == [["0", "1"], ["2", "3"]]
    known = split_by_subject(written, 0, {"ZOË": 1, "bo": 0})
    assert [[one.identifier for one in half] for half in known] == [["2", "3"], ["0", "1"]]


def test_subjects_that_have_a_half_stay_there():
    known = {f"person {one}": 1 for one in range(4)}
    first, second = split_by_subject(people(9), 0, known)
    assert known.keys() <= {example.metadata["subject"] for example in second}
    assert {example.metadata["subject"] for example in first}.isdisjoint(known)
    assert first
    with pytest.raises(UserError, match="without a subject"):
        split_by_subject(FORGET)
