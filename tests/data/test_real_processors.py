"""Families with their real processors: from images of two sizes, and from text alone, to coefficients and answers."""

from __future__ import annotations

import math

import pytest
import torch
from tests import tiny_models
from tests.real_processors import PROCESSORS, build_model, build_processor
from tests.reference import coefficients
from tests.sampling import one_in

import kvw
from kvw.data import Example, answer_batch, image_groups, prepare, prompt_batch, to_model
from kvw.data.rendering import IMAGE_PLACEHOLDERS, placeholders_of
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.probability import token_scores
from kvw.measuring.examples import measure_examples
from kvw.models.finding import find_value_matrices

pytestmark = pytest.mark.thorough

WIDE, TALL = tiny_models.noise_png(1, (60, 34)), tiny_models.noise_png(2, (30, 62))
PICTURED = [
    Example("Who is this?", "Basil Mahfouz Al-Kuwaiti", (WIDE,), "x:1"),
    Example("Where was the woman on this picture born, and when?", "Kuwait City", (TALL,), "x:2"),
    Example("Who is this, and where does she live?", "Paris", (WIDE,), "x:3"),
]
ALONE = [
    Example("Who wrote it?", "Ada", (), "x:4"),
    Example("What is the occupation of her father?", "She is a florist", (), "x:5"),
]
NEW_TOKENS = 5


@pytest.fixture(params=one_in(2, sorted(PROCESSORS)), scope="module")
def name(request):
    if package := PROCESSORS[request.param].package:
        pytest.importorskip(package)
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return build_model(name)


@pytest.fixture(scope="module")
def processor(name):
    return build_processor(name)


@pytest.fixture(scope="module")
def prepared(name, processor):
    return prepare(PICTURED if PROCESSORS[name].needs_image else PICTURED + ALONE, processor)


def groups(prepared):
    return [[prepared[place] for place in places] for places in image_groups(prepared)]


def padded_left(batch):
    """The same rows with their padding moved to the left."""
    rows, tokens = batch["input_ids"].shape
    shifts = (tokens - batch["attention_mask"].sum(1)).tolist()
    assert max(shifts) > 0

    def moved(tensor):
        if tensor.shape[:2] != (rows, tokens):
            return tensor
        return torch.stack([row.roll(shift, 0) for row, shift in zip(tensor, shifts, strict=True)])

    return {key: moved(tensor) for key, tensor in batch.items()}


def assert_same(found, expected):
    assert found.counts == expected.counts
    for key in expected.sums:
        torch.testing.assert_close(found.sums[key], expected.sums[key], rtol=1e-4, atol=1e-5)


def test_the_answer_is_found_and_a_batch_is_its_rows(prepared, processor):
    images = processor.tokenizer.convert_tokens_to_ids(placeholders_of(processor, IMAGE_PLACEHOLDERS))
    for group in groups(prepared):
        batch = answer_batch(group, processor)
        for row, item in enumerate(group):
            labels = batch["labels"][row]
            answer = labels[labels != -100].tolist()
            assert processor.tokenizer.decode(answer).strip() == item.example.answer
            assert not set(images) & set(answer)
            single = answer_batch([item], processor)
            attended = batch["attention_mask"][row].bool()
            assert batch["input_ids"][row][attended].tolist() == single["input_ids"][0].tolist()
            assert labels[attended].tolist() == single["labels"][0].tolist()
            if hasattr(processor, "_get_num_multimodal_tokens"):
                assert item.length == pytest.approx(single["input_ids"].shape[1], abs=5)


def test_coefficients_are_those_of_plain_hooks_however_padded(model, prepared, processor):
    singles = [to_model(answer_batch([item], processor), model) for item in prepared]
    batches = [answer_batch(group, processor) for group in groups(prepared)]
    found = kvw.measure(model, batches)
    matrices = find_value_matrices(model)
    seen = {}
    for batch in singles:
        for key, values in coefficients(model, matrices, batch).items():
            seen[key] = torch.cat([seen.get(key, values[:0]), values])
    answers = {True: 0, False: 0}
    for item in prepared:
        answers[bool(item.image_count)] += len(item.answer_ids)
    crossed = getattr(model.config.get_text_config(), "cross_attention_layers", None) or []
    for matrix in matrices:
        if matrix.key.expert is None:
            seen_by = (True,) if matrix.key.layer in crossed else (True, False)
            assert found.counts[matrix.key] == sum(answers[pictured] for pictured in seen_by)
        values = seen.get(matrix.key, torch.empty(0, matrix.width)).double()
        assert found.counts[matrix.key] == len(values)
        torch.testing.assert_close(found.sums[matrix.key], values.abs().sum(0), rtol=1e-4, atol=1e-5)
    assert_same(kvw.measure(model, [padded_left(batch) for batch in batches]), found)
    for budget in (1, None):
        assert_same(measure_examples(model, processor, prepared, budget=budget).statistics, found)


def test_scores_are_those_of_all_logits_for_any_batch_size(model, prepared, processor):
    together, alone = (token_scores(model, processor, prepared, budget=budget) for budget in (None, 1))
    for item, first, second in zip(prepared, together, alone, strict=True):
        batch = to_model(answer_batch([item], processor), model)
        labels = batch.pop("labels")[0]
        with torch.no_grad():
            table = model(**batch).logits[0].double().log_softmax(-1)
        expected = [float(table[place - 1, label]) for place, label in enumerate(labels) if label != -100]
        assert all(map(math.isfinite, expected))
        assert first.log_probabilities == pytest.approx(expected, abs=1e-3)
        assert second.log_probabilities == pytest.approx(expected, abs=1e-3)


def test_generated_answers_hold_no_prompt(model, prepared, processor):
    for item, found in zip(prepared, generate_answers(model, processor, prepared, max_new_tokens=1), strict=True):
        with torch.no_grad():
            best = model(**to_model(prompt_batch([item], processor), model)).logits[0, -1].argmax()
        assert found == processor.tokenizer.decode([best], skip_special_tokens=True).strip()
    together, alone = (
        generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS, budget=budget) for budget in (None, 1)
    )
    assert together == alone
    assert len(set(together)) > 1


def test_the_image_changes_the_scores(model, processor):
    """Otherwise none of the above would show that images reach the decoder."""
    examples = [Example("Who?", "Ada", (image,)) for image in (WIDE, TALL)]
    first, second = token_scores(model, processor, prepare(examples, processor))
    assert first.loss != pytest.approx(second.loss, abs=1e-3)


def test_a_processor_that_adds_to_the_text_is_refused():
    """PaliGemma ends every text with a line break, and would let the prompt see an answer that is part of the text."""
    processor = build_processor("paligemma")
    with pytest.raises(UserError, match="x:1: the processor's tokens do not end with the answer"):
        answer_batch(prepare(PICTURED, processor), processor)
