"""How one item is scored."""

from __future__ import annotations

import math

import pytest

from kvw.bench.scores import (
    COMPUTED,
    HEADLINES,
    PAIRED,
    alternatives,
    score_likelihoods,
    score_preference,
    score_reply,
)
from kvw.data.benchmarks import Item, Prompt, Task, fiubench, umu
from kvw.data.benchmarks.prompts import BARE, UNSEEN_OPTIONS
from kvw.evaluation.metrics import Outcome
from kvw.evaluation.probability import TokenScores

LETTERS = Prompt("letters", "{question} {options}", "test", reply="letter")
CHOICE = Task("choice", "image", LETTERS, ("choice_accuracy",), 5)
OPEN = Task("generation", "text", BARE, ("rouge_l_recall",), 5)
NAMED = Task("generation", "text", BARE, ("normalised_substring",), 5)
CLOZE = Task("cloze", "text", BARE, ("exact_match",), 5)
ITEM = Item("What job?", "a pilot", "001", "1", choices=("a baker", "a pilot"), correct=1)
FREE = Item("What job?", "a pilot", "001", "1", paraphrases=("pilot",), perturbed=("a baker", "a judge"))


def scored(loss):
    return TokenScores((-loss, -loss), (True, True), (0.0, 0.0), (0.0, 0.0))


@pytest.mark.parametrize(
    ("task", "item", "reply", "outcome"),
    [
        (CHOICE, ITEM, "B", Outcome.CORRECT),
        (CHOICE, ITEM, "A", Outcome.INCORRECT),
        (CHOICE, ITEM, "I cannot say.", Outcome.REFUSAL),
        (CHOICE, ITEM, "hm", Outcome.INVALID),
        (CHOICE, ITEM, None, Outcome.FAILED),
        (OPEN, FREE, "A pilot.", Outcome.CORRECT),
        (OPEN, FREE, "She is a pilot.", Outcome.INCORRECT),
        (NAMED, FREE, "She is a pilot.", Outcome.CORRECT),
        (OPEN, FREE, "I don't know.", Outcome.REFUSAL),
        (OPEN, FREE, "...", Outcome.INVALID),
        (OPEN, FREE, None, Outcome.FAILED),
        (CLOZE, FREE, "a pilot", Outcome.CORRECT),
    ],
)
def test_every_item_ends_in_one_of_five_ways(task, item, reply, outcome):
    found, scores = score_reply(task, item, reply)
    assert found is outcome
    assert scores["correct"] == float(outcome is Outcome.CORRECT)


def test_likelihoods_of_options():
    assert alternatives(CHOICE, ITEM) == ["A", "B"]
    assert score_likelihoods(ITEM, scored(1), [scored(2), scored(1)])["likeliest_correct"] == 1
    assert score_likelihoods(ITEM, scored(1), [scored(0.5), scored(1)])["likeliest_correct"] == 0


def test_options_that_are_not_shown_are_compared_without_a_reply():
    unseen = Task("choice", "image", UNSEEN_OPTIONS, ("choice_accuracy",), 1)
    assert alternatives(unseen, ITEM) == ["a baker", "a pilot"]
    likely, unlikely = ({"likeliest_correct": value} for value in (1.0, 0.0))
    assert score_preference(likely) == (Outcome.CORRECT, {"correct": 1.0})
    assert score_preference(unlikely) == (Outcome.INCORRECT, {"correct": 0.0})
    assert score_preference({}) == (Outcome.FAILED, {"correct": 0.0})


def test_likelihoods_of_paraphrases_and_wrong_answers():
    assert alternatives(OPEN, FREE) == ["pilot", "a baker", "a judge"]
    found = score_likelihoods(FREE, scored(1), [scored(0.5), scored(2), scored(4)])
    assert found["probability"] == pytest.approx(math.exp(-1))
    assert found["truth_ratio"] == pytest.approx(math.exp(0.5 - 3))
    wrong = math.exp(-2) + math.exp(-4)
    assert found["normalised_probability"] == pytest.approx(math.exp(-1) / (math.exp(-1) + wrong))
    assert found["extraction_strength"] == 1
    bare = Item("What job?", "a pilot", "001", "1", perturbed=("a baker",))
    assert score_likelihoods(bare, scored(1), [scored(3)])["truth_ratio"] == pytest.approx(math.exp(1 - 3))
    assert alternatives(OPEN, Item("q", "a", "s", "i")) == []


def test_umu_bench_reads_the_closest_option_and_the_outcome_what_was_said():
    shown = Prompt("options", "{question} {options}", "test", show_options=str)
    task = Task("choice", "image", shown, ("closest_option", "acc_f", "acc_r"), 50)
    for reply, closest, outcome in (
        ("a pilot", 1, Outcome.CORRECT),
        ("pilot", 1, Outcome.INCORRECT),
        ("bakery", 0, Outcome.INCORRECT),
        ("I cannot say.", 1, Outcome.REFUSAL),
    ):
        found, scores = score_reply(task, ITEM, reply)
        assert (found, scores["closest_option"]) == (outcome, closest)
    assert score_reply(task, ITEM, None) == (Outcome.FAILED, {"correct": 0.0})
    assert "closest_option" not in score_reply(OPEN, FREE, "a pilot")[1]


def test_fiubench_counts_keywords():
    task = Task("generation", "image", BARE, ("keywords",), 50)
    item = Item("Where?", "In Rome, as a judge", "001", "1", metadata={"keywords": ("Rome", "judge")})
    assert [score_reply(task, item, reply)[1]["keywords"] for reply in ("rome", "A JUDGE in Rome", "no")] == [0.5, 1, 0]
    assert "keywords" not in score_reply(task, FREE, "a pilot")[1]


def test_every_metric_that_umu_bench_and_fiubench_name_is_computed():
    for forms in (umu.forms(), fiubench.FORMS):
        assert {name for task in forms.values() for name in task.metrics} <= COMPUTED.keys() | PAIRED.keys()
    assert {"closest_option", "keywords"} <= HEADLINES
