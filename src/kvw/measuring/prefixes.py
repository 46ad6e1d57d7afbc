"""Sharing what several examples begin with: a system prompt, or an image that is asked about more than once.

The tokens up to where the examples differ are the same for all of them, and so are their keys and values in every
layer. They are computed once and reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kvw.data.batches import IGNORED, Prepared, answer_batch
from kvw.data.rendering import common_prefix
from kvw.measuring.beginnings import find_alike_examples
from kvw.measuring.engine import run_model
from kvw.measuring.recorder import Recorder
from kvw.models.forward_names import CACHE_NAMES, takes
from kvw.models.shared_keys import all_kept, behind
from kvw.models.whole_prompts import needs_whole_prompts

SHARING_FAMILIES = {
    "llama": ("llama",),
    "llava": ("llama",),
    "mistral": ("mistral",),
    "qwen2": ("qwen2",),
    "qwen3": ("qwen3",),
    "vipllava": ("llama",),
}
"""Families, and their decoders, in which a token's keys and values depend on nothing but the tokens before it and its
place in the row: causal attention over everything, rotary positions counted one by one. (Qwen2-VL counts positions in
three dimensions, Gemma 3 lets image tokens see each other.)"""
STEADY_ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Rotary positions by which a token is turned according to nothing but its place. The others ask how long the row
is."""


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Whether a beginning that is run once gives the same numbers, up to rounding, as one in each row.

    It depends on the edits that are attached: some do to a beginning what the rest of the row says.
    """
    config = model.config.get_text_config(decoder=True)
    if config.model_type not in SHARING_FAMILIES.get(model.config.model_type, ()):
        return False
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    causal = getattr(config, "is_causal", True)
    callable_so = takes(model, "position_ids") and any(takes(model, name) for name in CACHE_NAMES)
    # A window over earlier tokens (Mistral) forgets what lies behind it.
    every_token = causal and rotation in STEADY_ROTATIONS and all_kept(DynamicCache(config=config))
    return every_token and callable_so and not needs_whole_prompts(model)


def bundle(prepared: Sequence[Prepared], *, share: bool, budget: int) -> list[list[Prepared]]:
    """Put examples about the same images together, and texts that begin alike.

    Args:
        prepared: Examples with equal image counts.
        share: Off: every example is a bundle of its own.
        budget: Most tokens of a bundle, beginnings counted for every example.

    Returns:
        Bundles in an order that depends on nothing but the data, the longest example of each first.
    """
    ordered = sorted(range(len(prepared)), key=lambda position: (-prepared[position].length, position))
    items = [prepared[position] for position in ordered]
    if not share or not items:
        return [[item] for item in items]
    bundles = []
    for alike in _about_the_same_images(items) if items[0].image_count else _beginning_alike(items):
        size = max(1, budget // alike[0].length)
        bundles += [alike[start : start + size] for start in range(0, len(alike), size)]
    return bundles


def _about_the_same_images(items: list[Prepared]) -> list[list[Prepared]]:
    groups: dict[Any, list[Prepared]] = {}
    for item in items:
        groups.setdefault(item.example.images, []).append(item)
    return list(groups.values())


def _beginning_alike(items: Sequence[Prepared]) -> list[list[Prepared]]:
    groups = find_alike_examples(items)
    alone = sorted(set(range(len(items))).difference(*(group.rows for group in groups)))
    return [*([items[row] for row in group.rows] for group in groups), *([items[row]] for row in alone)]


@dataclass(frozen=True)
class SharedBatch:
    """Examples in two parts: beginnings, each run once for all examples that share it, and the rest of every example.

    Args:
        beginnings: What the processor returns for one example of each bundle, its ids cut to the longest beginning.
        lengths: Tokens of each beginning: (bundles,), int64.
        owners: The bundle of each example: (rows,), int64.
        endings: The tokens after the beginning, padded on the right: (rows, width), int64.
        present: Which of them are no padding: (rows, width), bool.
        answers: How many answer tokens each example has, the last of its ending: (rows,), int64.
    """

    beginnings: dict[str, Tensor]
    lengths: Tensor
    owners: Tensor
    endings: Tensor
    present: Tensor
    answers: Tensor

    @property
    def seen(self) -> Tensor:
        """Which tokens of the cut beginnings are theirs: (bundles, tokens), bool."""
        return torch.arange(self.beginnings["input_ids"].shape[1])[None, :] < self.lengths[:, None]

    @property
    def whole(self) -> dict[str, Tensor]:
        """Ids, mask and labels of the examples as rows: beginnings and endings side by side, padding in between."""
        ids = torch.cat([self.beginnings["input_ids"][self.owners], self.endings], dim=1)
        mask = torch.cat([self.seen[self.owners], self.present], dim=1)
        counts = self.present.sum(1)
        places = torch.arange(self.endings.shape[1])[None, :]
        answer = (places >= (counts - self.answers)[:, None]) & self.present
        labels = torch.full_like(ids, IGNORED)
        labels[:, -self.endings.shape[1] :] = torch.where(answer, self.endings, IGNORED)
        return {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}


def share(bundles: Sequence[list[Prepared]], processor: Any) -> SharedBatch:
    """Make one batch of bundles.

    Args:
        bundles: From :func:`bundle`, with equal image counts.
        processor: The processor the examples were prepared with.

    Raises:
        UserError: An image cannot be read.
    """
    beginnings = answer_batch([alike[0] for alike in bundles], processor)
    shared = [_shared(alike) for alike in bundles]
    expanded = [
        int(mask.sum()) - len(alike[0].token_ids)
        for mask, alike in zip(beginnings["attention_mask"], bundles, strict=True)
    ]
    lengths = torch.tensor([length + more for length, more in zip(shared, expanded, strict=True)])
    rests = [item.token_ids[shared[number] :] for number, alike in enumerate(bundles) for item in alike]
    width = max(len(rest) for rest in rests)
    images = {name: value for name, value in beginnings.items() if name not in ROW_TENSORS}
    return SharedBatch(
        beginnings={**images, "input_ids": beginnings["input_ids"][:, : int(lengths.max())]},
        lengths=lengths,
        owners=torch.tensor([number for number, alike in enumerate(bundles) for _ in alike]),
        endings=torch.tensor([[*rest, *[0] * (width - len(rest))] for rest in rests]),
        present=torch.arange(width)[None, :] < torch.tensor([len(rest) for rest in rests])[:, None],
        answers=torch.tensor([len(item.answer_ids) for alike in bundles for item in alike]),
    )


def run_beginnings(model: PreTrainedModel, batch: SharedBatch) -> DynamicCache:
    """Run the beginnings, on a model that :func:`shares_prefixes`, and return their keys and values."""
    cache = DynamicCache(config=model.config.get_text_config())
    run_model(model, {**batch.beginnings, "attention_mask": batch.seen.long()}, cache=cache)
    return cache


def run_endings(model: PreTrainedModel, batch: SharedBatch, cache: DynamicCache, width: int | None = None) -> None:
    """Run the endings, or the first ``width`` tokens of them, after :func:`run_beginnings`."""
    width = width or batch.endings.shape[1]
    mask = torch.cat([batch.seen[batch.owners], batch.present[:, :width]], dim=1)
    ending: dict[str, Tensor] = {
        "input_ids": batch.endings[:, :width],
        "attention_mask": mask.long(),
        "position_ids": batch.lengths[batch.owners][:, None] + torch.arange(width),
    }
    run_model(model, ending, cache=behind(cache, batch.owners))


def run_bundles(model: PreTrainedModel, recorder: Recorder, bundles: Sequence[list[Prepared]], processor: Any) -> None:
    """Let the recorder see the answer-predicting positions of all examples, with shared beginnings run once.

    Args:
        model: One that :func:`shares_prefixes`; call it under :func:`kvw.measuring.engine.evaluating`.
        recorder: Hooked to the value matrices.
        bundles: From :func:`bundle`.
        processor: The processor the examples were prepared with.

    Raises:
        UserError: An image cannot be read.
    """
    batch = share(bundles, processor)
    recorder.expect(torch.empty(0, dtype=torch.int64), batch.beginnings["input_ids"].numel())
    cache = run_beginnings(model, batch)
    # The last token of an answer predicts nothing.
    width, ends = batch.endings.shape[1] - 1, batch.present.sum(1) - 1
    places = torch.arange(width)[None, :]
    predicting = (places >= (ends - batch.answers)[:, None]) & (places < ends[:, None])
    recorder.expect(predicting.flatten().nonzero().squeeze(1), predicting.numel())
    run_endings(model, batch, cache, width)


ROW_TENSORS = ("input_ids", "attention_mask", "labels", "token_type_ids")


def _shared(alike: Sequence[Prepared]) -> int:
    """Tokens that all examples of a bundle begin with, so that every answer-predicting position comes after them."""
    shared = min(len(item.token_ids) - len(item.answer_ids) - 1 for item in alike)
    for item in alike[1:]:
        shared = min(shared, common_prefix(alike[0].token_ids, item.token_ids))
    return shared
