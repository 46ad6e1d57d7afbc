"""Which FFNs bring an answer back when the prompt is noise, and what enters their linear maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.measuring.engine import evaluating
from kvw.models.layer_inputs import decoder_layers, on_input
from kvw.training.answers import answers
from kvw.training.objective import Rows
from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class Map:
    """A linear map of an FFN.

    Args:
        layer: 0-based decoder layer.
        name: Of its module.
        turned: Whether its weight is stored as (in, out), as GPT-2's.
        writes: Whether it is the FFN's last.
    """

    layer: int
    name: str
    turned: bool
    writes: bool


def causal_effects(trainee: Trainee, maps: Sequence[Map], *, window: int, examples: int, noise: float) -> list[float]:
    """How much of an answer's probability an FFN's own output brings back when the prompt is noise, by first layer.

    The mean over the traced examples of p(answer | noise, outputs of a window restored) - p(answer | noise), p the
    geometric mean over its tokens; one number for each window.

    Args:
        trainee: The model.
        maps: The linear maps of all FFNs, layer by layer.
        window: Neighbouring layers whose FFN outputs are restored together.
        examples: How many forget examples, from the first, are traced.
        noise: Added to what enters the first layer at the prompt's positions, in standard deviations of that.
    """
    model, writes = trainee.model, [one for one in maps if one.writes]
    count = max(1, len(writes) - window + 1)
    effects, traced = [0.0] * count, min(examples, len(trainee.forget))
    generator = torch.Generator().manual_seed(trainee.settings.seed)

    def probability(rows: Rows) -> float:
        scored = answers(model, rows.batch)
        return float((scored.log_likelihoods / scored.lengths).exp().sum())

    with evaluating(model), trainee.autocast():
        for index in range(traced):
            rows = trainee.rows(trainee.forget, [index])
            clean: dict[str, Tensor] = {}
            with _hooked(model, writes, clean.__setitem__):
                probability(rows)
            prompt = (rows.batch["labels"] < 0) & rows.batch["attention_mask"].bool()  # (1, tokens)

            def corrupt(states: Tensor, prompt: Tensor = prompt) -> Tensor:
                drawn = torch.randn(states.shape, generator=generator).to(states)
                return states + prompt[..., None] * (noise * states[prompt].std()) * drawn

            for first in range(-1, count):
                generator.manual_seed(trainee.settings.seed + index)  # the same noise for each window
                inside = writes[first : first + window] if first >= 0 else []
                handle = on_input(decoder_layers(model)[0], 0, corrupt)
                try:
                    with _hooked(model, inside, partial(_instead, clean)):
                        found = probability(rows)
                finally:
                    handle.remove()
                if first < 0:
                    corrupted = found
                else:
                    effects[first] += (found - corrupted) / traced
    return effects


def _instead(values: Mapping[str, Tensor], name: str, _: Tensor) -> Tensor:
    return values[name]


def _hooked(model: PreTrainedModel, maps: Sequence[Map], see: Callable[[str, Tensor], Tensor | None]) -> ExitStack:
    """Let a function see, and perhaps replace, what some linear maps put out."""
    stack = ExitStack()
    for one in maps:
        module = model.get_submodule(one.name)
        stack.enter_context(
            module.register_forward_hook(lambda module, inputs, output, name=one.name: see(name, output))
        )
    return stack


def input_moments(trainee: Trainee, maps: Sequence[Map]) -> dict[str, Tensor]:
    """E x x' of the inputs of some linear maps over all tokens of the retain set: (in, in), float64, by name."""
    sums: dict[str, Tensor] = {}
    seen: list[Tensor] = []

    def take(name: str, inputs: Tensor) -> None:
        rows = inputs[seen[-1].to(inputs.device)].double()  # (tokens, in)
        moment = rows.T @ rows
        sums[name] = sums[name] + moment if name in sums else moment

    handles = [
        trainee.model.get_submodule(one.name).register_forward_pre_hook(
            lambda module, arguments, name=one.name: take(name, arguments[0].detach())
        )
        for one in maps
    ]
    try:
        with evaluating(trainee.model), trainee.autocast():
            for batch in trainee.batches(trainee.retain, range(len(trainee.retain))):
                rows = trainee.rows(trainee.retain, batch)
                seen.append(rows.batch["attention_mask"].bool())
                answers(trainee.model, rows.batch)
    finally:
        for handle in handles:
            handle.remove()
    return sums
