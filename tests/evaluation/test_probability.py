import math
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
from tests import tiny_models

from kvw.data import Example, answer_batch, prepare, prompt_batch, to_model
from kvw.errors import UserError
from kvw.evaluation.metrics import extraction_strength, min_k_plus_plus
from kvw.evaluation.probability import TokenScores, answer_probabilities, score_batch, token_scores, try_model

pytestmark = pytest.mark.thorough

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
    half = len(batches) // 2
    assert half > 2
    assert batches[:half] == batches[half:]


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


def scores_by_hand(model, batch):
    """The scores of one row's answer tokens from all logits, in float64; the smallest gap to another argmax; the
    first argmax."""
    labels = batch["labels"][0]
    places = [place for place, label in enumerate(labels) if label != -100]
    with torch.no_grad():
        logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    table = logits[0].double().log_softmax(-1)[[place - 1 for place in places]]
    targets = labels[places]
    weights = table.exp()
    means = (weights * table).sum(-1)
    best = table.topk(2).values
    return (
        TokenScores(
            log_probabilities=tuple(table[range(len(places)), targets].tolist()),
            is_argmax=tuple((table.argmax(-1) == targets).tolist()),
            means=tuple(means.tolist()),
            deviations=tuple((weights * (table - means[:, None]) ** 2).sum(-1).sqrt().tolist()),
        ),
        float((best[:, 0] - best[:, 1]).min()),
        int(table[0].argmax()),
    )


def assert_close(found, expected):
    assert found.is_argmax == expected.is_argmax
    for name in ("log_probabilities", "means", "deviations"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5, abs=1e-5)


def left_padded(batch):
    """The same batch with the padding of every row moved to its front."""
    moved = dict(batch)
    padding = (batch["attention_mask"] == 0).sum(dim=1).tolist()
    for name, tensor in batch.items():
        if tensor.shape[:2] == batch["input_ids"].shape:
            moved[name] = torch.stack([row.roll(count) for row, count in zip(tensor, padding, strict=True)])
    return moved


def with_first_labels(batch, tokens):
    """The batch with the first label of every row replaced, which changes what is asked and not what is said."""
    labels = batch["labels"].clone()
    for row, token in enumerate(tokens):
        labels[row, (labels[row] != -100).nonzero()[0]] = token
    return {**batch, "labels": labels}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("images", [(A,), ()], ids=len)
def test_token_scores_for_every_batch_size_and_padding_side(model, processor, images, side):
    questions = ["Who is this?", "Where was she born, and when?", "Ada?", "What is the occupation of her father?"]
    answers = ["K", "She lives in Paris", "Florist", "Basil Mahfouz Al-Kuwaiti"]
    prepared = prepare([Example(q, a, images) for q in questions for a in answers], processor)
    if side == "left":
        # Other absolute positions round otherwise in the rotary embedding, by up to 1.4e-5 in float32.
        model.double()
    singles = [to_model(answer_batch([item], processor), model) for item in prepared]
    firsts = [scores_by_hand(model, single)[2] for single in singles]
    expected, gaps, _ = zip(
        *(
            scores_by_hand(model, with_first_labels(single, [first]))
            for single, first in zip(singles, firsts, strict=True)
        ),
        strict=True,
    )
    assert min(gaps) > 1e-4  # so that the argmax cannot depend on the last bit
    assert {hit for scores in expected for hit in scores.is_argmax} == {True, False}
    for size in (1, 4, 16):
        found = []
        for start in range(0, 16, size):
            batch = answer_batch(prepared[start : start + size], processor)
            batch = with_first_labels(batch, firsts[start : start + size])
            assert len(batch["input_ids"]) == size
            assert size == 1 or (batch["attention_mask"] == 0).any()
            found += score_batch(model, left_padded(batch) if side == "left" else batch)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)


@pytest.mark.parametrize("side", ["left", "right"])
def test_token_scores_depend_on_neither_budget_nor_order_nor_the_tokenizers_padding_side(
    model, processor, side, monkeypatch
):
    prepared = prepare(EXAMPLES, processor)
    expected = token_scores(model, processor, prepared, budget=1)
    monkeypatch.setattr(processor.tokenizer, "padding_side", side)
    for one, other in zip(token_scores(model, processor, prepared[::-1])[::-1], expected, strict=True):
        assert_close(one, other)


def test_one_pass_gives_everything(model, processor):
    prepared = prepare(EXAMPLES, processor)
    rows = []
    hook = model.register_forward_pre_hook(
        lambda _, args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    scores = token_scores(model, processor, prepared)
    hook.remove()
    assert sum(rows) == len(prepared)
    for one, other in zip(scores, answer_probabilities(model, processor, prepared), strict=True):
        assert math.exp(-one.loss) == other.probability
        assert one.loss == pytest.approx(-fmean(one.log_probabilities))
        assert len(one.is_argmax) == len(one.means) == len(one.deviations) == other.tokens


def test_what_the_model_says_by_itself_can_be_extracted_whole(model, processor):
    prompt = prompt_batch(prepare(EXAMPLES[4:5], processor), processor)
    start = prompt["input_ids"].shape[1]
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    batch = {
        name: torch.nn.functional.pad(tensor, (0, 8), value=int(name == "attention_mask"))
        for name, tensor in prompt.items()
    }
    batch |= {"input_ids": ids, "labels": torch.cat([torch.full((1, start), -100), ids[:, start:]], dim=1)}
    (own,) = score_batch(model, batch)
    assert own.is_argmax == (True,) * 8
    assert extraction_strength(own.is_argmax) == 1
    batch["labels"][0, start + 2] = (ids[0, start + 2] + 1) % 400  # the label alone: what follows is said as before
    assert extraction_strength(score_batch(model, batch)[0].is_argmax) == 5 / 8


def test_parts_of_the_positions_give_what_all_at_once_do(model, processor, monkeypatch):
    prepared = prepare(EXAMPLES, processor)
    expected = token_scores(model, processor, prepared)
    monkeypatch.setattr("kvw.evaluation.probability.POSITIONS_AT_ONCE", 2)
    for one, other in zip(token_scores(model, processor, prepared), expected, strict=True):
        assert_close(one, other)


class Fixed(torch.nn.Module):
    """A model whose logits are given."""

    def __init__(self, logits, dtype=torch.float32):
        super().__init__()
        self.logits = logits.to(dtype)
        self.dtype = dtype
        self.embedding = torch.nn.Embedding(1, 1)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.logits)


def fixed_batch():
    ids = torch.tensor([[0, 1, 2]])
    return {"input_ids": ids, "labels": torch.tensor([[-100, 1, 2]])}


def test_scores_by_hand():
    logits = torch.log(torch.tensor([[[1, 1, 2], [1, 1, 2], [9, 9, 9]]], dtype=torch.float64))
    (found,) = score_batch(Fixed(logits), fixed_batch())
    mean = -0.5 * math.log(4) - 0.5 * math.log(2)
    deviation = math.sqrt(0.5 * (-math.log(4) - mean) ** 2 + 0.5 * (-math.log(2) - mean) ** 2)
    assert_close(found, TokenScores((-math.log(4), -math.log(2)), (False, True), (mean, mean), (deviation, deviation)))
    assert found.loss == pytest.approx(1.5 * math.log(2))
    assert min_k_plus_plus(found.log_probabilities, found.means, found.deviations) == pytest.approx(-1)


@pytest.mark.parametrize("impossible", [-math.inf, torch.finfo(torch.float32).min])
def test_tokens_that_a_model_rules_out_add_nothing(impossible):
    logits = torch.tensor([[[0.0, 0.0, impossible], [impossible, 3.0, impossible], [0.0, 0.0, 0.0]]])
    (found,) = score_batch(Fixed(logits), fixed_batch())
    assert found.means == pytest.approx((-math.log(2), 0))
    assert found.deviations == (0, 0)
    assert found.log_probabilities[0] == pytest.approx(-math.log(2))
    assert found.log_probabilities[1] < -1e30


def test_the_softmax_is_in_float32_for_a_model_in_bfloat16():
    logits = torch.tensor([[[2.0, 5.0, 1.0], [4.0, 1.0, 3.0], [0.0, 0.0, 0.0]]])  # exact in bfloat16
    assert score_batch(Fixed(logits, torch.bfloat16), fixed_batch()) == score_batch(Fixed(logits), fixed_batch())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch.pop("labels"), "only input_ids"),
        (lambda batch: batch["labels"].fill_(-100), "a row without answer tokens"),
    ],
)
def test_a_batch_needs_labels(change, message):
    batch = fixed_batch()
    change(batch)
    with pytest.raises(UserError, match=message):
        score_batch(Fixed(torch.zeros(1, 3, 3)), batch)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), MemoryError(), RuntimeError("MPS backend out of memory")]
)
def test_a_device_without_room_is_no_mismatch_of_model_and_processor(model, processor, error):
    (item,) = prepare(EXAMPLES[:1], processor)

    tried = []

    def fail(*_):
        tried.append(error)
        raise error

    with model.register_forward_pre_hook(fail):
        try_model(model, processor, item)
    assert tried == [error]


def test_another_failure_is(model, processor):
    (item,) = prepare(EXAMPLES[:1], processor)

    def fail(*_):
        raise RuntimeError("shapes")

    with (
        model.register_forward_pre_hook(fail),
        pytest.raises(UserError, match="RuntimeError: shapes"),
    ):
        try_model(model, processor, item)
