"""Attack: draw many answers at temperature 1; what is hidden from the most probable answer may stand in another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from kvw.data import Prepared, prompt_batch, to_model
from kvw.data.rendering import Processor
from kvw.evaluation.generation import decoding
from kvw.evaluation.journal import Journal
from kvw.evaluation.running import budget_for, content_keys
from kvw.measuring.batch_sizing import run_batched
from kvw.measuring.engine import evaluating
from kvw.measuring.fingerprint import digest
from kvw.progress import Progress
from kvw.settings import check_at_least


def drawn_answers(
    model: PreTrainedModel,
    processor: Processor,
    prepared: Sequence[Prepared],
    count: int,
    *,
    max_new_tokens: int = 50,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[tuple[str, ...]]:
    """Draw answers from the model's own distribution, at temperature 1.

    The seed of a question follows from its prompt, so what is drawn does not depend on the other questions.

    Args:
        model: Its mode, its settings and torch's random state are restored.
        processor: The processor that the examples were prepared with.
        prepared: Examples from ``prepare``.
        count: Answers to each question.
        max_new_tokens: The longest answer in tokens, end token included.
        journal: Keeps answers as they come.
        progress: Called with (examples done, examples in all).

    Returns:
        For each example its answers, in the order in which they were drawn.

    Raises:
        UserError: ``count`` is not positive, an image cannot be decoded, or memory runs out on a single answer.
    """
    check_at_least("count", count, 1)
    kept = (journal or Journal(None)).kept("drawn", tuple[str, ...])
    keys = content_keys(prepared, [item.prompt for item in prepared])
    drawn: list[tuple[str, ...]] = []
    with evaluating(model), decoding(model, processor.tokenizer, max_new_tokens, temperature=1.0):
        for item, (prompt, images) in zip(prepared, keys, strict=True):
            key = (prompt, (*images, f"{count} x {max_new_tokens}"))
            known = kept.find(key)
            if known is None:
                known = _draw(model, processor, item, count, max_new_tokens)
                kept.add({key: known})
            drawn.append(known)
            if progress is not None:
                progress(len(drawn), len(prepared))
    return drawn


def _draw(
    model: PreTrainedModel, processor: Processor, item: Prepared, count: int, max_new_tokens: int
) -> tuple[str, ...]:
    def run(batch: list[Prepared]) -> list[str]:
        inputs = to_model(prompt_batch(batch, processor), model)
        produced = model.generate(**inputs, generation_config=model.generation_config)  # type: ignore[operator]
        texts = processor.tokenizer.batch_decode(
            produced[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [text.strip() for text in texts]

    length = item.length - len(item.answer_ids) + max_new_tokens
    answers = [""] * count
    with torch.random.fork_rng():
        torch.manual_seed(int(digest("drawn", item.prompt)[:15], 16))
        for indices, texts in run_batched([item] * count, [length] * count, run, budget=budget_for(model, None)):
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
    return tuple(answers)
