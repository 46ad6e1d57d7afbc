import copy
import logging
import random

import pytest
import torch
from tests import tiny_models
from transformers import GenerationConfig

from kvw.data import Example, prepare, prompt_batch
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers

pytestmark = pytest.mark.thorough

A, B, C = (tiny_models.noise_png(seed, size) for seed, size in ((1, (60, 30)), (2, (30, 60)), (3, (9, 9))))
EXAMPLES = [
    Example("Who is this?", "Basil Mahfouz", (A,), "x:1"),
    Example("Where was the woman on this picture born, and when?", "Kuwait", (B,), "x:2"),
    Example("Which is larger?", "The second.", (C, A), "x:3"),
    Example("Who wrote it?", "Ada", (), "x:4"),
    Example("What is the occupation of her father?", "Florist", (), "x:5"),
    Example("Paris?", "Yes", (C,), "x:6"),
]
NEW_TOKENS = 10


def greedy_by_hand(model, processor, item):
    """Greedy decoding of one example without padding, cache or generate(): the definition, written out.

    Also returns the smallest gap between the best and the second-best logit. Random weights may give near-ties, at
    which the last bit, and so the batch, decides; the tests ask for a gap a hundred times the rounding.
    """
    batch = prompt_batch([item], processor)
    start = batch["input_ids"].shape[1]
    gaps = []
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            logits = model(**batch).logits[0, -1]
        best = logits.topk(2).values
        gaps.append(float(best[0] - best[1]))
        for name, value in (("input_ids", int(logits.argmax())), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in batch:
                batch[name] = torch.cat([batch[name], torch.tensor([[value]])], dim=1)
        if int(logits.argmax()) == processor.tokenizer.eos_token_id:
            break
    text = processor.tokenizer.decode(batch["input_ids"][0, start:], skip_special_tokens=True)
    return text.strip(), min(gaps)


def test_answers_are_the_arg_max_for_any_batch_size_and_order(model, processor):
    prepared = prepare(EXAMPLES, processor)
    expected, gaps = zip(*(greedy_by_hand(model, processor, item) for item in prepared), strict=True)
    assert min(gaps) > 1e-4
    assert len(set(expected)) == len(expected)
    for budget in (1, 150, None):
        assert generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS, budget=budget) == list(expected)
    order = random.Random(0).sample(range(len(prepared)), len(prepared))
    found = generate_answers(model, processor, [prepared[row] for row in order], max_new_tokens=NEW_TOKENS)
    assert found == [expected[row] for row in order]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_changes_nothing(model, processor, side, monkeypatch):
    prepared = prepare(EXAMPLES, processor)
    expected = generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS, budget=1)
    monkeypatch.setattr(processor.tokenizer, "padding_side", side)
    assert generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS) == expected
    assert processor.tokenizer.padding_side == side


def test_rows_may_end_early_without_changing_the_others(model, processor, monkeypatch):
    prepared = prepare(EXAMPLES[:2] + EXAMPLES[5:], processor)
    free = generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS)
    token = int(model(**prompt_batch(prepared[:1], processor)).logits[0, -1].argmax())
    # The first row now ends with its first token, which is shown because the tokenizer does not call it special.
    monkeypatch.setattr(model.generation_config, "eos_token_id", [token, processor.tokenizer.eos_token_id])
    ended = generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS)
    assert ended[0] == processor.tokenizer.decode([token]).strip() != free[0]
    assert ended[1:] == free[1:]


def test_equal_prompts_with_equal_images_are_generated_once(model, processor, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(A)
    examples = [
        EXAMPLES[0],
        Example("Who is this?", "Another reference", (path,)),
        Example("Who is this?", "Basil Mahfouz", (B,)),
        Example("Who is this?", "Basil Mahfouz"),
        Example("Who is this?", "Somebody"),
    ]
    rows = []
    original = type(model).generate

    def counting(self, **inputs):
        rows.append(len(inputs["input_ids"]))
        return original(self, **inputs)

    monkeypatch.setattr(type(model), "generate", counting)
    calls = []
    answers = generate_answers(
        model, processor, prepare(examples, processor), max_new_tokens=4, progress=lambda *call: calls.append(call)
    )
    assert sum(rows) == 3
    assert answers[0] == answers[1]
    assert answers[3] == answers[4]
    assert len(set(answers)) == 3
    assert calls[-1] == (5, 5)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_batches_are_formed_by_content_and_not_by_order(model, processor, monkeypatch):
    """Equal lengths leave the batch to the order of the examples, unless content decides."""
    examples = [Example(f"Who is number {digit}?", "Ada") for digit in "123456"]
    prepared = prepare(examples, processor)
    assert len({item.length for item in prepared}) == 1
    batches = []
    original = type(model).generate

    def recording(self, **inputs):
        batches.append(inputs["input_ids"].tolist())
        return original(self, **inputs)

    monkeypatch.setattr(type(model), "generate", recording)
    budget = 2 * (prepared[0].length + 4)
    forward = generate_answers(model, processor, prepared, max_new_tokens=2, budget=budget)
    backward = generate_answers(model, processor, prepared[::-1], max_new_tokens=2, budget=budget)
    assert forward == backward[::-1]
    assert len(batches) % 2 == 0
    assert batches[: len(batches) // 2] == batches[len(batches) // 2 :]


def test_the_models_own_generation_settings_are_ignored_restored_and_not_warned_about(model, processor, monkeypatch):
    prepared = prepare(EXAMPLES, processor)
    expected = generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS)
    settings = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=50,
        top_p=0.9,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        max_length=7,
        min_length=3,
        num_beams=3,
        num_return_sequences=2,
        suppress_tokens=[5, 6],
        return_dict_in_generate=True,
        eos_token_id=model.generation_config.eos_token_id,
    )
    before = copy.deepcopy(settings).to_dict()
    monkeypatch.setattr(model, "generation_config", settings)
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    try:
        assert generate_answers(model, processor, prepared, max_new_tokens=NEW_TOKENS) == expected
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert messages == []
    assert model.generation_config is settings
    assert settings.to_dict() == before


def test_training_flags_come_back_and_dropout_is_off_meanwhile(model, processor):
    prepared = prepare(EXAMPLES[:1], processor)
    expected = generate_answers(model, processor, prepared, max_new_tokens=4)
    inner = model.get_input_embeddings()
    model.train()
    inner.eval()
    modes = []
    hook = model.register_forward_pre_hook(
        lambda *_: modes.append((any(m.training for m in model.modules()), torch.is_grad_enabled()))
    )
    try:
        assert generate_answers(model, processor, prepared, max_new_tokens=4) == expected
        assert set(modes) == {(False, False)}
        assert model.training
        assert not inner.training
        with pytest.raises(UserError, match="an image cannot be read"):
            generate_answers(model, processor, prepare([Example("Q", "A", (A[:500],))], processor), max_new_tokens=4)
        assert model.training
    finally:
        hook.remove()
        model.eval()


def test_the_number_of_new_tokens_is_obeyed_and_checked(model, processor):
    prepared = prepare(EXAMPLES[:2], processor)
    short, long = (generate_answers(model, processor, prepared, max_new_tokens=count) for count in (1, 6))
    assert [len(text) for text in short] < [len(text) for text in long]
    with pytest.raises(UserError, match="max_new_tokens must be at least 1"):
        generate_answers(model, processor, prepared, max_new_tokens=0)
    assert generate_answers(model, processor, []) == []
