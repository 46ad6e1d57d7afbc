"""A small model that runs beside another one, and what it says differently once it has other weights."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from kvw.errors import UserError
from kvw.models.forward_names import CACHE_NAMES, cache_name, kept_cache, takes
from kvw.models.loading import is_text_model

OWN = {*CACHE_NAMES, "use_cache", "labels", "logits_to_keep", "position_ids", "cache_position", "return_dict"}
"""What a forward is told that is not for the model beside it."""
REORDERING = ("reorder_cache", "crop", "batch_select_indices", "batch_repeat_interleave")
"""What would change the rows or the length of a cache behind the small model's back."""
Forward = Callable[..., Any]


@dataclass
class _Kept:
    """What the small model keeps of a generation.

    Args:
        cache: The cache of the model that it runs beside, which tells the generation.
        length: Tokens of that model so far.
        told: Which columns of the small model are tokens: (rows, columns), bool.
        own: Keys and values of the small model, before and after.
    """

    cache: weakref.ref[Cache]
    length: int
    told: Tensor
    own: list[Any] = field(default_factory=lambda: [None, None])


class Companion:
    """log p_after - log p_before of a small model, where another model predicts a token.

    A small model without images gets the prompt without them. It keeps keys and values of its own.

    Args:
        small: The small model; tells what it takes.
        before: Its forward with the weights that it had.
        after: Its forward with those that it has now.
        pictures: Ids of tokens that stand for images in the other model.
    """

    def __init__(self, small: PreTrainedModel, before: Forward, after: Forward, pictures: tuple[int, ...]) -> None:
        self._small, self._forwards = small, (before, after)
        self._pictures, self._sees = pictures, not is_text_model(small.config)
        self._kept: _Kept | None = None

    def add(self, logits: Tensor, alpha: float, named: Mapping[str, Any], cache: Cache | None) -> Tensor:
        """The logits of the other model plus alpha times the difference.

        Differences of log-probabilities sum to no constant, so a wider (padded) vocabulary keeps its own logits there.

        Args:
            logits: (rows, columns, vocabulary), for the columns that it was asked for.
            alpha: How much of the difference is added.
            named: What the other model was called with.
            cache: The keys and values that it has now; None if it keeps none.

        Raises:
            UserError: It was called with something that the small model cannot follow.
        """
        ids, told, columns = self._asked(named)
        kept, begin = self._generation(cache, ids, told)
        found = [self._log_probabilities(which, named, ids, told, kept) for which in (0, 1)]
        if kept is not None:
            kept.length, kept.told = begin + ids.shape[1], torch.cat([kept.told, self._packed(ids, told)[1]], 1)
        difference = found[1] - found[0]  # (tokens told, vocabulary of the small model)
        common = min(difference.shape[-1], logits.shape[-1])
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        places = torch.full(ids.shape, -1, device=ids.device)
        places[told] = torch.arange(int(told.sum()), device=ids.device)
        places = places[:, columns].to(logits.device)
        there = places >= 0
        added = torch.zeros_like(exact)
        added[there] = torch.nn.functional.pad(
            alpha * difference.to(exact)[places[there]][:, :common], (0, logits.shape[-1] - common)
        )
        return (exact + added).to(logits.dtype)

    def _asked(self, named: Mapping[str, Any]) -> tuple[Tensor, Tensor, Any]:
        """Token ids and which of them the small model is told: (rows, tokens); and the columns that are asked for."""
        ids, mask = named.get("input_ids"), named.get("attention_mask")
        if ids is None or named.get("labels") is not None:
            raise UserError(
                "A model beside another one is told the tokens, and changes what the loss is made of.",
                found="inputs_embeds" if ids is None else "labels",
                do="call the model with input_ids and without labels",
            )
        told = torch.ones_like(ids, dtype=torch.bool)
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.ndim != 2:
                raise UserError("It is unknown which tokens are padding.", do="give an attention_mask (rows, tokens)")
            told = mask[:, -ids.shape[1] :].bool()
        if not self._sees:
            told = told & ~torch.isin(ids, torch.tensor(self._pictures, dtype=ids.dtype, device=ids.device))
        keep = named.get("logits_to_keep", 0)
        columns = slice(-keep if keep else None, None) if isinstance(keep, int) else keep
        return ids, told, columns

    def _generation(self, cache: Cache | None, ids: Tensor, told: Tensor) -> tuple[_Kept | None, int]:
        if cache is None:
            return None, 0
        begin = int(cache.get_seq_length()) - ids.shape[1]
        if begin == 0:
            self._kept = _Kept(weakref.ref(cache), 0, told[:, :0])
            for name in REORDERING:
                setattr(cache, name, _refuse)
        if self._kept is None or self._kept.cache() is not cache or self._kept.length != begin:
            raise UserError(
                "The small model has not seen what comes before.",
                found=f"{ids.shape[1]} tokens after {begin}",
                do="pass whole prompts, and generate with the edit attached from the first token on",
            )
        return self._kept, begin

    def _packed(self, ids: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """The told tokens of each row at its right end, and which columns hold one; (rows, columns) both."""
        if self._sees:
            return ids, told
        lengths = told.sum(1)
        width = int(lengths.max())
        filled = torch.arange(width, device=ids.device)[None] >= width - lengths[:, None]
        packed = ids.new_zeros(len(ids), width)
        packed[filled] = ids[told]
        return packed, filled

    def _log_probabilities(
        self, which: int, named: Mapping[str, Any], ids: Tensor, told: Tensor, kept: _Kept | None
    ) -> Tensor:
        """Of what follows each told token, row after row: (tokens, vocabulary), float32 or better."""
        packed, filled = self._packed(ids, told)
        mask = filled if kept is None else torch.cat([kept.told, filled], 1)
        rest = {name: value for name, value in named.items() if name not in OWN} if self._sees else {}
        inputs = {**rest, "input_ids": packed, "attention_mask": mask.long(), "use_cache": kept is not None}
        if not self._sees and takes(self._small, "position_ids"):
            inputs["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -packed.shape[1] :]
        if kept is not None and kept.own[which] is not None:
            inputs[cache_name(self._small)] = kept.own[which]
        output = self._forwards[which](**inputs)
        if kept is not None:
            kept.own[which] = kept_cache(self._small, output)
        scores: Tensor = output.logits[filled]
        return torch.log_softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), -1)


def picture_tokens(model: PreTrainedModel) -> tuple[int, ...]:
    """The ids that stand for images in what a model is given, as its configuration names them."""
    names = ("image_token_id", "image_token_index", "vision_start_token_id", "vision_end_token_id", "video_token_id")
    return tuple(value for name in names if isinstance(value := getattr(model.config, name, None), int))


def _refuse(*_: Any, **__: Any) -> None:
    raise UserError(
        "The rows of this generation are exchanged, and the small model beside it does not see that.",
        do="generate without beams and without an assistant",
    )
