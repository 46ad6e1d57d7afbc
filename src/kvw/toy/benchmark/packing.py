"""Many questions about one image share its tokens in training.

A row is a beginning (the image, or nothing but ``USER:``) and several questions with answers. Every question sees the
beginning and itself only, at the positions it would have alone, so the loss is that of separate rows at less than half
of their cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration, LlavaProcessor


@dataclass(frozen=True)
class Packed:
    """Rows that hold several questions each.

    Args:
        ids: (rows, tokens).
        positions: The position of every token within its own question's conversation, (rows, tokens).
        segments: 0 for the beginning, from 1 for the questions, -1 for padding, (rows, tokens).
        answers: Whether a token belongs to an answer (the end of the sequence included), (rows, tokens).
        features: The image tokens before the projector, (rows, image tokens, width); absent for text.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    answers: torch.Tensor
    features: torch.Tensor | None = None

    def mask(self) -> torch.Tensor:
        """Which token sees which: earlier ones of its question and the beginning, (rows, 1, tokens, tokens)."""
        own, other = self.segments.unsqueeze(2), self.segments.unsqueeze(1)
        earlier = torch.ones(self.ids.shape[1], self.ids.shape[1], dtype=torch.bool).tril()
        return (earlier & ((other == own) | (other == 0))).unsqueeze(1)


class Packer:
    """Turns conversations into tokens as the processor does, the beginning and the rest apart.

    Args:
        processor: The model's processor.
        image_tokens: How many tokens an image is.
    """

    def __init__(self, processor: LlavaProcessor, image_tokens: int) -> None:
        self.tokenizer = processor.tokenizer
        image = processor.image_token * image_tokens
        self.beginnings = {True: self.tokenizer.encode(f"USER: {image}\n"), False: self.tokenizer.encode("USER:")}

    def pack(self, rows: Sequence[Sequence[tuple[str, str]]], features: Sequence[torch.Tensor] | None = None) -> Packed:
        """Pack rows of questions and answers.

        Args:
            rows: The questions and answers of every row.
            features: The image of every row, if the rows are about images.
        """
        beginning = self.beginnings[features is not None]
        encoded = [[self._segment(question, answer, features is not None) for question, answer in row] for row in rows]
        longest = len(beginning) + max(sum(len(tokens) for tokens, _ in row) for row in encoded)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        positions, segments = torch.zeros_like(ids), torch.full_like(ids, -1)
        answers = torch.zeros_like(ids, dtype=torch.bool)
        first = len(beginning)
        ids[:, :first], positions[:, :first], segments[:, :first] = torch.tensor(beginning), torch.arange(first), 0
        for row, parts in enumerate(encoded):
            start = first
            for number, (tokens, prompt) in enumerate(parts, start=1):
                end = start + len(tokens)
                ids[row, start:end] = torch.tensor(tokens)
                positions[row, start:end] = torch.arange(first, first + len(tokens))
                segments[row, start:end] = number
                answers[row, start + prompt : end] = True
                start = end
        return Packed(ids, positions, segments, answers, None if features is None else torch.stack(list(features)))

    def _segment(self, question: str, answer: str, with_image: bool) -> tuple[list[int], int]:
        """The tokens that follow the beginning, and how many of them are prompt."""
        prompt = f"{question} ASSISTANT:" if with_image else f" {question} ASSISTANT:"
        encoded: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False)
        reply = f" {answer}{self.tokenizer.eos_token}"
        return encoded + self.tokenizer.encode(reply, add_special_tokens=False), len(encoded)


def packed_loss(model: LlavaForConditionalGeneration, batches: Sequence[Packed]) -> torch.Tensor:
    """Mean cross-entropy of all answer tokens of several batches; the vision tower is not run."""
    losses, count = torch.zeros(()), 0
    for packed in batches:
        embedded = model.get_input_embeddings()(packed.ids)
        if packed.features is not None:
            projected = model.model.multi_modal_projector(packed.features)
            images = (packed.ids == model.config.image_token_id).unsqueeze(2)
            embedded = embedded.masked_scatter(images, projected.to(embedded.dtype))
        hidden = model.model.language_model(
            inputs_embeds=embedded, attention_mask=packed.mask(), position_ids=packed.positions, use_cache=False
        ).last_hidden_state
        wanted = packed.answers[:, 1:]
        logits = model.lm_head(hidden[:, :-1][wanted]).float()
        losses = losses + cross_entropy(logits, packed.ids[:, 1:][wanted], reduction="sum")
        count += int(wanted.sum())
    return losses / count
