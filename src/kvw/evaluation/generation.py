"""Greedy answers, the same for every batch size and order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from kvw.data import Prepared, prompt_batch, to_model
from kvw.data.rendering import Processor, Tokenizer
from kvw.evaluation.journal import ANSWERS, Journal
from kvw.evaluation.running import Key, budget_for, content_keys
from kvw.measuring.engine import evaluating
from kvw.processes import current
from kvw.progress import Progress
from kvw.settings import check_at_least


def generate_answers(
    model: PreTrainedModel,
    processor: Processor,
    prepared: Sequence[Prepared],
    *,
    max_new_tokens: int = 50,
    budget: int | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Generate an answer to each prompt: at every step the token with the largest logit.

    Examples with the same prompt and the same images are generated once. The model's own settings for
    sampling, beams, repetition penalties and forced or suppressed tokens are not used: a repetition penalty
    would count padding and prompt tokens, and so make answers depend on the batch. Batches are formed by
    content, so the order of the examples changes nothing. Several processes (:func:`kvw.processes.together`) share
    the batches among them.

    Args:
        model: A model that generates text from images and text; its mode and settings are restored.
        processor: The processor the examples were prepared with.
        prepared: Examples from ``prepare``.
        max_new_tokens: The longest answer in tokens, end token included.
        budget: Padded tokens per batch, the new ones included; None for the default of the model's device.
        journal: Keeps answers as they come; batches that it has are not generated again.
        progress: Called with (examples done, examples in all).

    Returns:
        One text per example, in order, without special tokens and surrounding white space.

    Raises:
        UserError: An image cannot be decoded, memory runs out on a single example, or ``max_new_tokens`` is
            not positive.
    """
    check_at_least("max_new_tokens", max_new_tokens, 1)
    rows_of = _rows_of_equal_prompts(prepared)
    duplicates = list(rows_of.values())
    # A longer answer is another result, and one journal may hold both.
    keys = [(prompt, (*images, str(max_new_tokens))) for prompt, images in rows_of]
    items = [prepared[rows[0]] for rows in duplicates]
    kept = (journal or Journal(None)).kept(ANSWERS, str)
    lengths = [item.length - len(item.answer_ids) + max_new_tokens for item in items]
    run = partial(_generate, model, processor)
    answers = [""] * len(prepared)
    done = 0
    with evaluating(model), decoding(model, processor.tokenizer, max_new_tokens):
        for indices, texts in kept.run_grouped(items, keys, lengths, run, budget=budget_for(model, budget)):
            for index, text in zip(indices, texts, strict=True):
                for row in duplicates[index]:
                    answers[row] = text
                done += len(duplicates[index])
            if progress is not None:
                progress(done, len(prepared))
    return current().broadcast(lambda: answers)


def _generate(model: PreTrainedModel, processor: Processor, batch: list[Prepared]) -> list[str]:
    inputs = to_model(prompt_batch(batch, processor), model)
    produced = model.generate(**inputs, generation_config=model.generation_config)  # type: ignore[operator]
    new_tokens = produced[:, inputs["input_ids"].shape[1] :]
    texts = processor.tokenizer.batch_decode(new_tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text.strip() for text in texts]


def _rows_of_equal_prompts(prepared: Sequence[Prepared]) -> dict[Key, list[int]]:
    """Rows with the same prompt and images, in an order that depends on the content only."""
    keys = content_keys(prepared, [item.prompt for item in prepared])
    rows_of: dict[Key, list[int]] = {}
    for row in sorted(range(len(prepared)), key=lambda row: (keys[row], prepared[row].length)):
        rows_of.setdefault(keys[row], []).append(row)
    return rows_of


@contextmanager
def decoding(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> Iterator[None]:
    """Let a model generate with these settings and none of its own but the special tokens.

    Args:
        model: Gets its settings back at the end of the block.
        tokenizer: Its tokenizer, for special tokens that the model does not name.
        max_new_tokens: The longest answer in tokens, end token included.
        temperature: 0 takes the token with the largest logit; above, tokens are drawn from
            softmax(logits / temperature).
        top_p: When drawing, only from the most probable tokens that together have this probability.
    """
    # The model's configuration is swapped and not only overruled in the call: generate() fills in whatever is
    # left open from the model's, and None cannot be given explicitly.
    original = model.generation_config
    end = original.eos_token_id if original.eos_token_id is not None else tokenizer.eos_token_id
    padding = original.pad_token_id if original.pad_token_id is not None else tokenizer.pad_token_id
    if padding is None:
        padding = end[0] if isinstance(end, list) else end
    model.generation_config = GenerationConfig(
        num_beams=1,
        **_drawing(temperature, top_p),
        max_new_tokens=max_new_tokens,
        bos_token_id=original.bos_token_id,
        eos_token_id=end,
        pad_token_id=padding,
    )
    try:
        yield
    finally:
        model.generation_config = original


def _drawing(temperature: float, top_p: float) -> dict[str, Any]:
    if temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}  # left open, it would be 50
