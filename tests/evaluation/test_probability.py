import math

import pytest
import torch
from tests import tiny_models

from kvw.data import Example, answer_batch, prepare
from kvw.errors import UserError
from kvw.evaluation import answer_probabilities

A, B, C = (tiny_models.noise_png(seed, size) for seed, size in ((1, (60, 30)), (2, (30, 60)), (3, (9, 9))))
EXAMPLES = [
    Example("Who is this?", "Basil Mahfouz Al-Kuwaiti", (A,), "x:1"),
    Example("Where was the woman on this picture born, and when?", "K", (B,), "x:2"),
    Example("Which is larger?", "The second.", (C, A), "x:3"),
    Example("Who wrote it?", "Ada 🦊\n", (), "x:4"),
    Example("What is the occupation of her father?", "Florist", (), "x:5"),
    Example("What is the occupation of her father?", "She is a florist and lives in Paris", (), "x:6"),
]


def by_hand(model, processor, item):
    """Log probabilities of one example's answer tokens: all logits, one token at a time, in float64."""
    batch = answer_batch([item], processor)
    labels = batch.pop("labels")[0]
    with torch.no_grad():
        table = model(**batch).logits[0].double().log_softmax(-1)
    return [float(table[place - 1, label]) for place, label in enumerate(labels) if label != -100]


@pytest.mark.parametrize("budget", [1, 120, None])
def test_probabilities_for_any_batch_size(model, processor, budget):
    prepared = prepare(EXAMPLES, processor)
    found = answer_probabilities(model, processor, prepared, budget=budget)
    for item, result in zip(prepared, found, strict=True):
        expected = by_hand(model, processor, item)
        assert result.tokens == len(item.answer_ids) == len(expected)
        assert result.log_probability == pytest.approx(sum(expected), abs=1e-4)
        assert result.probability == pytest.approx(math.exp(sum(expected) / len(expected)), rel=1e-4)


def test_the_models_own_loss_is_the_same_number(model, processor):
    prepared = prepare(EXAMPLES[:1], processor)
    with torch.no_grad():
        loss = float(model(**answer_batch(prepared, processor)).loss)
    assert answer_probabilities(model, processor, prepared)[0].probability == pytest.approx(math.exp(-loss), rel=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_order_and_padding_side_change_nothing(model, processor, side, monkeypatch):
    prepared = prepare(EXAMPLES, processor)
    expected = answer_probabilities(model, processor, prepared)
    monkeypatch.setattr(processor.tokenizer, "padding_side", side)
    # Batches are formed by content, so this holds to the last bit.
    assert answer_probabilities(model, processor, prepared[::-1]) == expected[::-1]


def test_batches_are_formed_by_content_and_not_by_order(model, processor):
    prepared = prepare([Example(f"Who is number {digit}?", "Ada") for digit in "123456"], processor)
    assert len({item.length for item in prepared}) == 1
    batches = []
    hook = model.register_forward_pre_hook(
        lambda _, args, inputs: batches.append(inputs["input_ids"].tolist()), with_kwargs=True
    )
    try:
        for order in (prepared, prepared[::-1]):
            answer_probabilities(model, processor, order, budget=2 * prepared[0].length)
    finally:
        hook.remove()
    assert [len(batch) for batch in batches] == [2] * 6
    assert batches[:3] == batches[3:]


def test_a_model_that_cannot_select_positions_gives_the_same(model, processor, monkeypatch):
    prepared = prepare(EXAMPLES, processor)
    expected = answer_probabilities(model, processor, prepared)
    selections = []
    original = model.forward

    def forward(**inputs):
        selections.append("logits_to_keep" in inputs)
        return original(**inputs)

    monkeypatch.setattr(model, "forward", forward)
    for result, reference in zip(answer_probabilities(model, processor, prepared), expected, strict=True):
        assert result.log_probability == pytest.approx(reference.log_probability, abs=1e-4)
    assert not any(selections)


def test_few_logits_are_made(model, processor):
    widths = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *call: widths.append(call[2].shape[1]))
    try:
        prepared = prepare(EXAMPLES[:1], processor)
        answer_probabilities(model, processor, prepared)
    finally:
        hook.remove()
    assert widths == [len(prepared[0].answer_ids)]


def test_progress_counts_examples(model, processor):
    calls = []
    answer_probabilities(
        model, processor, prepare(EXAMPLES, processor), budget=1, progress=lambda *call: calls.append(call)
    )
    assert calls == [(done, 6) for done in range(1, 7)]
    assert answer_probabilities(model, processor, []) == []


def test_output_that_is_not_a_number_is_a_user_error():
    model, processor = tiny_models.build("qwen2_vl")
    model.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="x:1: the model's output is not a number"):
        answer_probabilities(model, processor, prepare(EXAMPLES[:1], processor))
