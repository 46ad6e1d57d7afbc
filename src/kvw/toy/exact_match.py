"""How many questions of a split a model answers with exactly the right words."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import LlavaProcessor, PreTrainedModel

from kvw.toy.batches import conversation
from kvw.toy.world import World


@torch.no_grad()
def exact_match(
    model: PreTrainedModel,
    processor: LlavaProcessor,
    world: World,
    split: str,
    *,
    limit: int | None = None,
    batch_size: int = 64,
) -> float:
    """The share of a split's lines that greedy generation answers with exactly the right words.

    Args:
        model: The model to ask.
        processor: Its processor.
        world: The world it was trained on.
        split: One of ``SPLITS``.
        limit: Ask only this many lines, taken evenly from the whole split.
        batch_size: Questions per batch.
    """
    lines = world.split(split)
    if limit is not None and limit < len(lines):
        lines = [lines[index * len(lines) // limit] for index in range(limit)]
    right = 0
    for start in range(0, len(lines), batch_size):
        batch = lines[start : start + batch_size]
        chats = [conversation(line.question, line.draw(world.image_size)) for line in batch]
        answers = generate_answers(model, processor, chats)
        right += sum(answer == line.answer for answer, line in zip(answers, batch, strict=True))
    return right / len(lines)


def generate_answers(model: PreTrainedModel, processor: LlavaProcessor, chats: list[list[dict[str, Any]]]) -> list[str]:
    """The model's greedy answers to conversations that end with a question."""
    prompts = processor.apply_chat_template(chats, add_generation_prompt=True)
    images = [part["image"] for chat in chats for part in chat[0]["content"] if part["type"] == "image"]
    inputs = processor(text=prompts, images=images or None, padding=True, return_tensors="pt")
    produced = cast(Any, model).generate(**inputs, max_new_tokens=16, do_sample=False)
    new = produced[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in cast(Any, processor).batch_decode(new, skip_special_tokens=True)]
