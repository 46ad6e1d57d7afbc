"""What a model says and how probable it finds answers depends on neither batches nor padding nor a cache."""

from __future__ import annotations

import functools

import pytest
from tests.sampling import one_in
from transformers import GenerationConfig

from kvw.bench.asking import ask, questions
from kvw.bench.benchmarks import get_benchmark
from kvw.bench.recipe import EvaluationPart
from kvw.data.benchmarks import Protocol
from kvw.evaluation import generation, running
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.models.loading import Checkpoint
from kvw.toy import checkpoint

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("small_toy")]

TASKS = ("forget/seen", "forget/text", "general/shapes")


@functools.cache
def toy():
    return Loaded.load(Checkpoint(checkpoint("vanilla"), "toy:vanilla"))


@functools.cache
def asked():
    wanted = EvaluationPart(tasks=TASKS, at_most=6)
    return questions(get_benchmark("toy").load(), Protocol(), wanted)


@functools.cache
def one_by_one():
    return scores(1, toy().processor)


def scores(size, processor, journal=None):
    """Every item asked, in batches of exactly this many items as long as there are enough."""
    sizes = []

    def in_batches(items, lengths, run, *, budget):
        for start in range(0, len(items), size):
            sizes.append(len(items[start : start + size]))
            yield list(range(start, start + sizes[-1])), run(items[start : start + size])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "run_batched", in_batches)
        found = ask(toy().model, processor, asked(), journal or Journal(None))
    assert max(sizes) == size
    return found


@pytest.mark.parametrize(
    ("size", "side", "cached"),
    [(1, "left", False), (3, "right", True), *one_in(2, [(8, "right", False), (8, "left", True)])],
)
def test_batch_size_padding_side_and_cache_change_nothing(size, side, cached, monkeypatch):
    """What is expected is asked one by one, padded on the left, with a cache."""
    processor = toy().processor
    monkeypatch.setattr(processor.tokenizer, "padding_side", side)
    expected_scores, used = one_by_one(), []
    if not cached:
        monkeypatch.setattr(generation, "GenerationConfig", functools.partial(GenerationConfig, use_cache=False))
    with toy().model.register_forward_pre_hook(
        lambda _, __, inputs: used.append(inputs["use_cache"] and "logits_to_keep" in inputs), with_kwargs=True
    ):
        found_scores = scores(size, processor)
    for found, expected in zip(found_scores, expected_scores, strict=True):
        assert found.reply == expected.reply
        assert found.outcome is expected.outcome
        assert found.scores == pytest.approx(expected.scores, abs=1e-5, rel=1e-5)
    # Scoring keeps those of beginnings alone, whose logits are not asked for; generating does unless told otherwise.
    assert set(used) == ({False, True} if cached else {False})


def test_the_questions_are_of_different_lengths_and_the_model_knows_most_of_the_answers():
    """Otherwise nothing would be padded, and equal nonsense would pass."""
    assert len({len(question.example.question) for question in asked()}) > 5
    found = one_by_one()
    assert {question.place for question in asked()} == {tuple(task.split("/")) for task in TASKS}
    assert sum(score.scores["exact_match"] for score in found) > 0.9 * len(found)
    assert len({score.reply for score in found}) > 10


def test_what_was_kept_is_what_was_asked(tmp_path):
    with Journal(None, tmp_path / "answers.jsonl") as journal:
        first = scores(3, toy().processor, journal)
    again = Journal(None, tmp_path / "answers.jsonl")
    assert scores(8, toy().processor, again) == first
