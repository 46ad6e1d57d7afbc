"""How a model goes on after a text: the most probable first tokens, each continued greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from kvw.data import to_model
from kvw.models.forward_names import CACHE_NAMES, cache_name, takes

LOOKED_AT = 16
"""First tokens that are looked at for each one that is wanted: some are not admitted."""


@dataclass(frozen=True)
class Continuation:
    """What a model writes after a text.

    Args:
        tokens: Token ids.
        log_probability: Log probability of all tokens together, natural logarithm.
    """

    tokens: tuple[int, ...]
    log_probability: float


def can_continue(model: PreTrainedModel) -> bool:
    """Whether a model can go on after a text and be given the keys and values of the text: not with an encoder."""
    return not model.config.is_encoder_decoder and any(takes(model, name) for name in CACHE_NAMES)


def continue_text(
    model: PreTrainedModel,
    tokens: Sequence[int],
    *,
    width: int,
    length: int,
    admit: Callable[[int], bool],
    going_on: Callable[[list[Continuation]], Sequence[bool]],
) -> None:
    """Continue a text in several ways: with its most probable next tokens, and greedily from there.

    The keys and values of the text are computed once and repeated. Call it under
    :func:`kvw.measuring.engine.evaluating`.

    Args:
        model: One that :func:`can_continue`.
        tokens: The ids of the text.
        width: How many first tokens are followed.
        length: The longest continuation in tokens.
        admit: Whether a token may be the first one.
        going_on: Called at every length with what there is, and says what goes on.
    """
    logits, cache = _forward(model, torch.tensor([list(tokens)]), None, len(tokens))
    likely = logits[0].topk(min(LOOKED_AT * width, logits.shape[-1]))
    first = [
        Continuation((token,), value)
        for value, token in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        if admit(token)
    ]
    running, rows = first[:width], [0] * min(width, len(first))
    while running:
        keep = [place for place, wanted in enumerate(going_on(running)) if wanted]
        if not keep or len(running[0].tokens) >= length:
            return
        running, rows = [running[place] for place in keep], [rows[place] for place in keep]
        _select(cache, torch.tensor(rows))
        last = torch.tensor([[one.tokens[-1]] for one in running])
        logits, cache = _forward(model, last, cache, len(tokens) + len(running[0].tokens))
        values, chosen = logits.max(-1)
        running = [
            Continuation((*one.tokens, token), one.log_probability + value)
            for one, token, value in zip(running, chosen.tolist(), values.tolist(), strict=True)
        ]
        rows = list(range(len(running)))


def _select(cache: Cache, rows: Tensor) -> None:
    """Make a cache hold these of its rows, one of them several times if it is there several times."""
    if type(cache).batch_select_indices is not Cache.batch_select_indices:  # MiniMax's own holds more than its layers
        cache.batch_select_indices(rows)
    else:  # what every layer has, also those without keys and values
        cache.reorder_cache(rows)  # type: ignore[arg-type]


def _forward(model: PreTrainedModel, ids: Tensor, cache: Cache | None, seen: int) -> tuple[Tensor, Cache]:
    """One step: log-probabilities of the next token, float32 on the CPU of shape (rows, vocabulary), and the cache."""
    name = cache_name(model)
    more = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    filled = {} if cache is None else {name: cache}
    inputs = {"input_ids": ids, "attention_mask": torch.ones(len(ids), seen, dtype=torch.int64)}
    if takes(model, "position_ids"):  # some remember how far pictures of an earlier question have moved positions
        inputs["position_ids"] = torch.arange(seen - ids.shape[1], seen).expand(len(ids), -1)
    inputs = to_model(inputs, model)
    output = model(**inputs, use_cache=True, **filled, **more)
    return output.logits[:, -1].float().log_softmax(-1).cpu(), getattr(output, name)
