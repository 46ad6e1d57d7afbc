"""Batches of labelled examples: questions about one image share it, to the moments of separate rows."""

from __future__ import annotations

import pytest
import torch
from tests.tiny_models import noise_png

from kvw.data import Example, answer_batch, prepare
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.plans import Examples
from kvw.measuring.prefixes import SharedBatch
from kvw.models.finding import find_value_matrices

PHOTOS = [noise_png(seed) for seed in range(3)]
EXAMPLES = [
    Example(question, answer, (PHOTOS[photo],) if photo is not None else ())
    for photo, question, answer in [
        (0, "Who is this?", "Jody Vance"),
        (1, "Who is this?", "Basil Mahfouz"),
        (0, "Where was the person in the image born?", "Kuwait City"),
        (None, "Where does Jody Vance live?", "Paris"),
        (0, "Who is she?", "A florist"),
        (2, "Which city is this?", "Paris"),
    ]
]


@pytest.fixture
def prepared(llava_processor):
    return prepare(EXAMPLES, llava_processor)


@pytest.mark.thorough
@pytest.mark.parametrize("budget", [1, 120, 4096])
def test_shared_images_give_the_moments_of_separate_rows(llava, llava_processor, prepared, budget):
    batches = LabelledBatches(prepared, llava_processor, llava, budget)
    assert sorted(batches.order) == list(range(len(EXAMPLES)))
    assert any(isinstance(batch, SharedBatch) for batch in batches)
    separate = [answer_batch([prepared[place]], llava_processor) for place in batches.order]
    weights, folds = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0], [0, 1, 0, 1, 1, 0]
    examples = Examples(weights, folds, keep=lambda row: row % 2 == 0)
    matrices = find_value_matrices(llava)
    shared, kept = measure_moments(llava, batches, matrices, examples=examples)
    expected, expected_kept = measure_moments(llava, separate, matrices, examples=examples)
    for key, moment in expected.items():
        torch.testing.assert_close(shared[key].sums, moment.sums, rtol=1e-4, atol=1e-5 * float(moment.sums.max()))
        torch.testing.assert_close(shared[key].masses, moment.masses)
        assert_same_tokens(kept[key], expected_kept[key])
    tokens, alone = (measure_tokens(llava, given, matrices, weights=weights) for given in (batches, separate))
    for key, found in alone.items():
        assert_same_tokens(tokens[key], found)


def assert_same_tokens(found, expected):
    torch.testing.assert_close(found.coefficients, expected.coefficients, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.rows, expected.rows)
    assert torch.equal(found.offsets, expected.offsets)
    torch.testing.assert_close(found.weights, expected.weights)


def test_an_image_is_run_once_for_all_its_questions(llava, llava_processor, prepared):
    batches = LabelledBatches(prepared, llava_processor, llava)
    assert [len(batch.lengths) for batch in batches if isinstance(batch, SharedBatch)] == [3]
    assert len(batches[1:]) == len(batches) - 1


def test_families_that_cannot_share_get_a_row_for_each_example(qwen2_vl, prepared, llava_processor):
    batches = LabelledBatches(prepared, llava_processor, qwen2_vl)
    assert not any(isinstance(batch, SharedBatch) for batch in batches)
    assert sum(len(batch["labels"]) for batch in batches) == len(EXAMPLES)


def test_one_by_one_every_example_is_a_batch_of_its_own_in_the_order_given(llava, llava_processor, prepared):
    batches = LabelledBatches(prepared, llava_processor, llava).one_by_one()
    assert len(batches) == len(EXAMPLES)
    assert batches.order == list(range(len(EXAMPLES)))
    for batch, item in zip(batches, prepared, strict=True):
        for name, value in answer_batch([item], llava_processor).items():
            assert torch.equal(batch[name], value)
