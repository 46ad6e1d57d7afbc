"""Texts that begin alike: the moments and coefficients of separate rows, with the beginning run once in a batch."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from tests import text_models
from tests.edits.test_conditional import gate_edit
from tests.edits.test_low_rank import low_rank_edit
from tests.edits.test_steering import steering_edit
from tests.measuring.test_labelled import assert_same_tokens

from kvw.data import Example, answer_batch, prepare
from kvw.data.text import TextProcessor
from kvw.measuring.engine import measure
from kvw.measuring.examples import measure_examples
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.plans import Examples
from kvw.measuring.prefixes import SharedBatch, shares_prefixes
from kvw.measuring.sources import Sources
from kvw.models.finding import find_value_matrices

pytestmark = pytest.mark.thorough

SYSTEM = "You are a helpful assistant. What is the name of the author, "
QUESTIONS = (
    "who was born?",
    "who lives in Paris?",
    "and which city does she live in?",
    "?",
    "who is this?",
    "the woman?",
)
EXAMPLES = [
    Example("Where?", "Paris"),
    *(Example(f"{SYSTEM}{question}", f"She is {'very ' * index}old.") for index, question in enumerate(QUESTIONS)),
]
WEIGHTS, FOLDS = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 0.25], [0, 1, 0, 1, 1, 0, 0]


@functools.cache
def built(kind):
    model, tokenizer = text_models.build(kind)
    return model, TextProcessor(tokenizer)


@pytest.fixture
def llama():
    model, processor = built("llama")
    return copy.deepcopy(model), processor


def separate(batches, processor, prepared):
    return [answer_batch([prepared[place]], processor) for place in batches.order]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, moment in expected.items():
        error = (found[key].sums - moment.sums).norm(dim=(1, 2)) / moment.sums.norm(dim=(1, 2))
        assert float(error.max()) < 1e-5
        torch.testing.assert_close(found[key].masses, moment.masses, rtol=1e-12, atol=0)


SOURCES = {
    "usual": Sources(),
    "first": Sources(answer=0, prompt=0, image=0, first=1),
    "prompt": Sources(answer=0, prompt=1, image=0, first=0),
}


@pytest.mark.parametrize("edit", [None, gate_edit, low_rank_edit])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_moments_are_those_of_separate_rows(kind, edit):
    model, processor = built(kind)
    prepared = prepare(EXAMPLES, processor)
    matrices = find_value_matrices(model, "both")
    examples = Examples(WEIGHTS, FOLDS, keep=lambda row: row % 2 == 0)
    attachment = edit(model).attach(model) if edit else None
    try:
        for budget, sources in ((160, "usual"), (4096, "usual"), (4096, "first"), (4096, "prompt")):
            batches = LabelledBatches(prepared, processor, model, budget)
            assert sorted(batches.order) == list(range(len(EXAMPLES)))
            assert any(isinstance(batch, SharedBatch) for batch in batches)
            (found, kept), (expected, expected_kept) = (
                measure_moments(model, given, matrices, sources=SOURCES[sources], examples=examples)
                for given in (batches, separate(batches, processor, prepared))
            )
            assert_same(found, expected)
            for key, tokens in expected_kept.items():
                assert_same_tokens(kept[key], tokens)
    finally:
        if attachment:
            attachment.detach()


def test_all_tokens_are_kept_in_the_order_of_the_rows(llama):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    batches, matrices = LabelledBatches(prepared, processor, model), find_value_matrices(model)[:2]
    found = measure_tokens(model, batches, matrices, weights=WEIGHTS)
    expected = measure_tokens(model, separate(batches, processor, prepared), matrices, weights=WEIGHTS)
    for key, tokens in expected.items():
        assert_same_tokens(found[key], tokens)


def test_the_beginning_runs_once_in_a_batch(llama):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    shapes = []
    model.register_forward_pre_hook(
        lambda _, inputs, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    batches = LabelledBatches(prepared, processor, model)
    measure_moments(model, batches, find_value_matrices(model))
    (one, common), (rows, _), alone = shapes
    assert (one, rows) == (1, 6)
    assert alone == (1, prepared[0].length)
    assert common > 8
    assert isinstance(batches.unshared()[0], dict)


def test_memory_that_runs_out_costs_no_token(llama):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    batches, matrices = LabelledBatches(prepared, processor, model), find_value_matrices(model)
    expected, _ = measure_moments(model, batches, matrices, examples=Examples(WEIGHTS, FOLDS))
    rows = []

    def full(_, inputs):
        rows.append(len(inputs[0]))
        if rows[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.model.layers[2].mlp.register_forward_pre_hook(full)
    found, _ = measure_moments(model, batches, matrices, examples=Examples(WEIGHTS, FOLDS))
    assert max(rows) == 6
    assert_same(found, expected)


def test_nothing_is_shared_under_an_edit_that_looks_for_the_end_of_the_prompt(llama):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    batches, matrices = LabelledBatches(prepared, processor, model), find_value_matrices(model)
    plain, _ = measure_moments(model, batches, matrices)
    with steering_edit(model).attach(model):
        assert not shares_prefixes(model)
        expected, _ = measure_moments(model, batches.unshared(), matrices)
        found, _ = measure_moments(model, batches, matrices)
        later, _ = measure_moments(model, LabelledBatches(prepared, processor, model, 10_000), matrices)
    assert shares_prefixes(model)
    for key, moment in expected.items():
        assert torch.equal(found[key].sums, moment.sums)
    last = max(expected, key=lambda key: key.layer)
    assert not torch.allclose(plain[last].sums, expected[last].sums, rtol=1e-3)
    assert_same(later, expected)


@pytest.mark.parametrize("budget", [1, 200, 800, 4096])
def test_mean_coefficients_are_those_of_separate_rows(llama, budget):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    expected = measure(model, [answer_batch([item], processor) for item in prepared])
    shapes = []
    handle = model.register_forward_pre_hook(
        lambda _, inputs, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    found = measure_examples(model, processor, prepared, budget=budget).statistics
    handle.remove()
    assert found.counts == expected.counts
    for key in expected.sums:
        torch.testing.assert_close(found.sums[key], expected.sums[key], rtol=1e-5, atol=1e-6)
    ran = sum(rows * columns for rows, columns in shapes)
    assert (ran < sum(item.length for item in prepared)) == (budget > 800)


def test_mean_coefficients_when_memory_runs_out(llama):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    expected = measure_examples(model, processor, prepared).statistics
    rows = []

    def full(_, inputs):
        rows.append(len(inputs[0]))
        if rows[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.model.layers[2].mlp.register_forward_pre_hook(full)
    found = measure_examples(
        model, processor, prepared, budget=8 * 3 * max(item.length for item in prepared)
    ).statistics
    assert max(rows) > 3
    assert found.counts == expected.counts
    for key in expected.sums:
        torch.testing.assert_close(found.sums[key], expected.sums[key], rtol=1e-5, atol=1e-6)


def test_other_families_get_a_row_for_each_example():
    model, processor = built("opt")
    batches = LabelledBatches(prepare(EXAMPLES, processor), processor, model)
    assert not any(isinstance(batch, SharedBatch) for batch in batches)
    assert sum(len(batch["labels"]) for batch in batches) == len(EXAMPLES)
