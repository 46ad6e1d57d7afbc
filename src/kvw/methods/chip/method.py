"""CHIP from a loaded model and examples: outputs of FFN maps, directions, projections; see docs/methods/chip.md."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kvw.data import Example, Prepared
from kvw.data.batches import answer_batch, image_groups, to_model
from kvw.data.shared import is_shared
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.measuring.source_weights import image_token_ids
from kvw.methods.chip.settings import ChipSettings
from kvw.methods.method import LoadedModel
from kvw.methods.subspace.labels import labels_of
from kvw.models.ffn_linears import FfnLinear, ffn_linears
from kvw.models.layer_inputs import decoder_layers
from kvw.progress import Progress, unheard
from kvw.training.result import Result

Outputs = Mapping[str, Tensor]
"""By name of a map's weight, one row for each example: (examples, outputs), float32, on the CPU."""


def chip(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: ChipSettings,
    progress: Progress = unheard,
) -> Result:
    """Project what sets forget facts apart from their siblings out of the maps of the last FFNs, in place.

    Siblings are the retain examples that are not shared by all requests, the user's own and neighbours; all of them if
    there are none. One output of each map and example is kept in memory meanwhile.

    Args:
        loaded: The model, of a known family.
        forget: Examples whose knowledge must go; never empty.
        retain: Examples whose knowledge must stay; never empty.
        settings: See :class:`~kvw.methods.chip.settings.ChipSettings`.
        progress: Called with batches done in the current pass and their total.

    Raises:
        UserError: A set is empty, the model has experts or quantised weights, or nothing sets the sets apart.
    """
    if not forget or not retain:
        raise UserError("CHIP compares a forget set with a retain set.", found="an empty set", do="give both")
    model = loaded.model
    linears = ffn_linears(model, settings.chosen_layers(len(decoder_layers(model))))
    own, others = (mean_outputs(loaded, loaded.prepare(some), linears, settings, progress) for some in (forget, retain))
    labels = labels_of(list(forget))
    groups: list[Hashable] = [
        labels.fact(row) if settings.by == "fact" else labels.subject(row) for row in range(len(forget))
    ]
    beside = [place for place, example in enumerate(retain) if not is_shared(example)] or list(range(len(retain)))
    for one in linears:
        name = one.weight.parameter
        chosen = driven(own[name], others[name], settings.share)
        basis = directions(own[name][:, chosen], groups, others[name][beside][:, chosen], settings.energy)
        one.weight.write(projected(one, chosen, basis))
    weights = {one.weight.parameter: one.weight.read() for one in linears}
    return Result("chip", {"method": asdict(settings)}, weights)


def mean_outputs(
    loaded: LoadedModel,
    prepared: Sequence[Prepared],
    linears: Sequence[FfnLinear],
    settings: ChipSettings,
    progress: Progress,
) -> dict[str, Tensor]:
    """What each map writes for each example: alpha times the mean over image positions, and the rest over all others.

    Without images it is the mean over all positions; padding never counts.

    Returns:
        See :data:`Outputs`.
    """
    model, image_ids = loaded.model, torch.tensor(image_token_ids(loaded.model), dtype=torch.int64)
    found = {one.weight.parameter: torch.empty(0) for one in linears}
    weights = torch.empty(0)

    def keep(name: str, places: Sequence[int]) -> Any:
        def take(_: nn.Module, inputs: Any, output: Tensor) -> None:
            values = output.detach().float().reshape(len(places), -1, output.shape[-1])
            means = torch.einsum("rt,rto->ro", weights.to(values), values).cpu()
            if not len(found[name]):
                found[name] = torch.zeros(len(prepared), means.shape[1])
            found[name][list(places)] = means

        return take

    groups = image_groups(prepared)
    batches = [
        group[start : start + settings.batch_size]
        for group in groups
        for start in range(0, len(group), settings.batch_size)
    ]
    for done, places in enumerate(batches, 1):
        batch = answer_batch([prepared[place] for place in places], loaded.processor)
        weights = position_weights(batch, image_ids, settings.image_weight)
        inputs = {name: value for name, value in to_model(batch, model).items() if name != "labels"}
        with evaluating(model), ExitStack() as hooks:
            for one in linears:
                hooks.callback(one.module.register_forward_hook(keep(one.weight.parameter, places)).remove)
            model(**inputs, use_cache=False)
        progress(done, len(batches))
    return found


def position_weights(batch: Mapping[str, Tensor], image_ids: Tensor, image_weight: float) -> Tensor:
    """What each position counts, each row adding up to 1: (rows, tokens), float32."""
    attended = batch["attention_mask"].bool().cpu()
    image = torch.isin(batch["input_ids"].cpu(), image_ids) & attended
    shares = []
    for mask, pictures in zip(attended, image, strict=True):
        text = mask & ~pictures
        if bool(pictures.any()) and bool(text.any()):
            shares.append(image_weight * pictures / pictures.sum() + (1 - image_weight) * text / text.sum())
        else:
            shares.append(mask / mask.sum())
    return torch.stack(shares).float()


def driven(forget: Tensor, retain: Tensor, share: float) -> Tensor:
    """The outputs whose mean absolute value on the forget set is above that on the retain set by most: their places."""
    scores = forget.abs().mean(0) - retain.abs().mean(0)
    return scores.topk(max(1, int(share * len(scores)))).indices.sort().values


def directions(forget: Tensor, groups: Sequence[Hashable], siblings: Tensor, energy: float) -> Tensor:
    """An orthonormal basis of what sets each group apart from the siblings: (outputs, k), float64.

    Args:
        forget: Outputs of the forget set: (examples, outputs).
        groups: Which fact or subject each example belongs to.
        siblings: Outputs of the siblings: (others, outputs), at least one.
        energy: Share of the energy of the differences, each of length 1, that the basis holds.

    Raises:
        UserError: No group differs from its siblings.
    """
    expected, found = siblings.double().mean(0), []
    for group in dict.fromkeys(groups):
        rows = [row for row, one in enumerate(groups) if one == group]
        difference = forget[rows].double().mean(0) - expected
        if float(difference.norm()) > 1e-8:
            found.append(difference / difference.norm())
    if not found:
        raise UserError(
            "Nothing sets the forget set apart from its siblings.", do="give a retain set that is about other facts"
        )
    _, sizes, adjoint = torch.linalg.svd(torch.stack(found), full_matrices=False)
    kept = int((sizes.square().cumsum(0) < energy * sizes.square().sum()).sum()) + 1
    basis: Tensor = adjoint[: min(kept, len(sizes))].T
    return basis


def projected(one: FfnLinear, chosen: Tensor, basis: Tensor) -> Tensor:
    """W with (I - Q Q^T) in front of the rows that write the chosen outputs, in float64 and rounded once."""
    weight = one.weight.read().clone()
    upright = weight.T if isinstance(one.module, Conv1D) else weight
    rows = upright[chosen.to(weight.device)].double()
    basis = basis.to(rows)
    upright[chosen.to(weight.device)] = (rows - basis @ (basis.T @ rows)).to(weight.dtype)
    return weight
