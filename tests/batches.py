"""Random batches for the tiny models, and how to compare weights."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.models.finding import find_value_matrices
from kvw.models.parts import Part
from kvw.models.value_matrix import MatrixKey


def text_batch(rows: int, tokens: int, answer: int, seed: int, vocabulary: int = 60) -> dict[str, Tensor]:
    """Random text whose last ``answer`` tokens are the answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, vocabulary, (rows, tokens), generator=generator)
    labels = torch.full_like(ids, -100)
    labels[:, -answer:] = ids[:, -answer:]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def padded(batch: dict[str, Tensor], left: int, right: int) -> dict[str, Tensor]:
    """The same rows with padding on either side."""

    def pad(values: Tensor, filler: int) -> Tensor:
        return torch.nn.functional.pad(values, (left, right), value=filler)

    return {
        "input_ids": pad(batch["input_ids"], 0),
        "attention_mask": pad(batch["attention_mask"], 0),
        "labels": pad(batch["labels"], -100),
    }


def joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Several batches as one, padded on the right to the longest."""
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    grown = [padded(batch, 0, longest - batch["input_ids"].shape[1]) for batch in batches]
    return {name: torch.cat([batch[name] for batch in grown]) for name in grown[0]}


def weights(model: PreTrainedModel, part: Part = "ffn") -> dict[MatrixKey, Tensor]:
    """Copies of all value matrices of a kind."""
    return {matrix.key: matrix.module.weight.detach().clone() for matrix in find_value_matrices(model, part)}


def logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Logits (rows, tokens, vocabulary) without labels or gradients."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        found: Tensor = model(**inputs, use_cache=False).logits
    return found
