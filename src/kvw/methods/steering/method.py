"""Steering: directions, null spaces, gates; see docs/methods/steering.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data import Example
from kvw.edits.edit import EditMetadata, signed
from kvw.edits.steering import Steer, SteeringEdit
from kvw.errors import UserError
from kvw.measuring.given import Given, examples_given
from kvw.methods.steering import METHOD
from kvw.methods.steering.direction import ContrastPairs, find_directions, pairs_of, refusal_pairs
from kvw.methods.steering.gate import GateReport, auc, held_out_gates
from kvw.methods.steering.neutral import neutral_pairs
from kvw.methods.steering.null_space import check_null_space, null_space, solve_filter
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.steering.states import read_states, readings
from kvw.models.layer_inputs import decoder_layers
from kvw.progress import Progress, warn


def steering(
    model: PreTrainedModel,
    forget: Given,
    retain: Given,
    settings: SteeringSettings | Mapping[str, Any] | None = None,
    *,
    processor: Any = None,
    pairs: ContrastPairs | None = None,
    on_layer: Callable[[GateReport], None] | None = None,
    on_warning: Callable[[str], None] = warn,
    progress: Progress | None = None,
) -> SteeringEdit:
    """Find where to move hidden states, and a linear gate that decides by the prompt how far.

    The model stays as it was. Of the examples only questions and images are looked at, unless the pairs are made from
    the forget set. The states of all examples at their last prompt token are kept in memory, in float32.

    Source: MLLMEraser, Ding et al., arXiv 2510.04217; docs/methods/steering.md lists where their code differs.

    Args:
        model: A loaded model of a known family.
        forget: Examples whose knowledge must go, or :func:`kvw.batches` of them; never empty. Their prompts and answers
            are read apart, so batches of the caller's own will not do.
        retain: The same of what must stay; never empty. Do not score the result on them. Plain text is left out.
        settings: See :class:`~kvw.methods.steering.settings.SteeringSettings`; or some of them by name.
        processor: The model's processor or tokenizer; not needed beside :func:`kvw.batches`.
        pairs: What the direction is made from; None for what the setting ``pairs`` says.
        on_layer: Gets what was found for each layer.
        on_warning: Gets told of gates that can hardly tell the sets apart. By default a :class:`UserWarning` says it.
        progress: Called with batches done in the current pass and their total.

    Raises:
        UserError: A setting, an example or the model is not usable, recall and erasure do not differ, or the retain set
            leaves no null space.
    """
    settings = METHOD.settings_from(settings).for_model(model.config.model_type)
    loaded, (forgotten, kept) = examples_given(model, {"forget": forget, "retain": retain}, processor)
    kept = [example for example in kept if not example.plain]  # there is no prompt that could decide
    check_not_empty(forgotten, kept)
    layers = settings.chosen_layers(len(decoder_layers(model)))
    if pairs is None and settings.pairs == "neutral":
        pairs = pairs_of(*neutral_pairs(model.config), loaded.processor)
    pairs = pairs or refusal_pairs(forgotten, loaded.processor, settings.seed, model.config)
    directions = find_directions(model, loaded.processor, pairs, layers, settings, progress=progress)
    first, second = (
        read_states(model, readings(loaded.prepare(examples), loaded.processor), layers, progress=progress)
        for examples in (forgotten, kept)
    )
    fitted = {
        layer: fit_layer(layer, directions[layer], first.pop(layer), second.pop(layer), settings) for layer in layers
    }
    for _, report in fitted.values():
        if on_layer is not None:
            on_layer(report)
        for warning in report.warnings:
            on_warning(warning)
    values = asdict(settings) | {"layers": (layers[0], layers[-1])}
    metadata = signed(settings.strength, EditMetadata(method="steering", settings=values))
    steers = {layer: steer for layer, (steer, _) in fitted.items()}
    return SteeringEdit(steers, settings.strength, metadata, where=settings.where, decoding=settings.decoding)


def check_not_empty(forget: Sequence[Example], retain: Sequence[Example]) -> None:
    """Both sets are needed.

    Raises:
        UserError: Names the empty one.
    """
    for name, examples in (("forget", forget), ("retain", retain)):
        if not examples:
            raise UserError(f"The {name} set is empty.", do="give examples")


def fit_layer(
    layer: int, direction: Tensor, forget: Tensor, retain: Tensor, settings: SteeringSettings
) -> tuple[Steer, GateReport]:
    """The two vectors of one layer, and what its gate is worth.

    Args:
        layer: 0-based, for messages.
        direction: d: (hidden,).
        forget, retain: States (samples, hidden).
        settings: ``ratio``, ``energy``, ``ridge`` and ``parity``.

    Raises:
        UserError: The null space is empty.
    """

    def basis_of(states: Tensor) -> tuple[Tensor, Tensor]:
        return null_space(states, ratio=settings.ratio, energy=settings.energy, exactly=settings.parity)

    basis, energies = basis_of(retain)
    check_null_space(layer, basis, ratio=settings.ratio, energy=settings.energy)
    steer = Steer(solve_filter(forget, basis, settings.ridge), direction)
    gates = held_out_gates(forget, retain, lambda states: basis_of(states)[0], settings.ridge)
    known = gates is not None
    seen = gates if gates is not None else tuple(states.double() @ steer.filter.double() for states in (forget, retain))
    report = GateReport(
        layer=layer,
        dimensions=basis.shape[1],
        energy=float(energies[: basis.shape[1]].sum() / energies.sum().clamp(min=torch.finfo(torch.float64).tiny)),
        forget=float(seen[0].mean()),
        retain=float(seen[1].mean()),
        auc=auc(*seen) if known else None,
        shift=float(direction.norm()),
    )
    return steer, report
