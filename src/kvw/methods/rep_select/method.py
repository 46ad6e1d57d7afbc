"""RepSelect from a loaded model and examples: gradients, their components, one step; see docs/methods/rep-select.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from kvw.data import Example, Prepared
from kvw.data.batches import answer_batch, image_groups, to_model
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.methods.method import LoadedModel
from kvw.methods.rep_select.settings import RepSelectSettings
from kvw.models.ffn_linears import FfnLinear, ffn_linears
from kvw.progress import Progress, unheard
from kvw.training.answers import answers
from kvw.training.result import Result
from kvw.training.trainee import restored

OVERSAMPLING = 16
"""Components of a sketch beyond those that are wanted; without them the last ones are not exact."""


def rep_select(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: RepSelectSettings,
    progress: Progress = unheard,
) -> Result:
    """Subtract the filtered gradient of the forget set from all maps of the FFNs, in place.

    Takes memory for one or two gradients of these maps, in float32 or better.

    Args:
        loaded: The model, of a known family.
        forget: Examples whose knowledge must go; never empty.
        retain: Read only with ``of="retain"``.
        settings: See :class:`~kvw.methods.rep_select.settings.RepSelectSettings`.
        progress: Called with batches done in the current pass and their total.

    Raises:
        UserError: The model has experts or quantised weights, an example cannot be used, or a gradient is 0 or not
            finite.
    """
    linears = ffn_linears(loaded.model, settings.layers)
    own = weight_gradients(loaded, loaded.prepare(forget), linears, settings.batch_size, progress)
    others: Mapping[str, Tensor] = own
    if settings.of == "retain" and settings.collapse != "none":
        others = weight_gradients(loaded, loaded.prepare(retain), linears, settings.batch_size, progress)
    changes = {}
    for one in linears:
        name, turned = one.weight.parameter, isinstance(one.module, Conv1D)
        value = (
            filtered(own[name].T, others[name].T, settings).T if turned else filtered(own[name], others[name], settings)
        )
        changes[name] = value
    factor = _factor(changes, linears, settings)
    for one in linears:
        weight, change = one.weight.read(), changes[one.weight.parameter]
        one.weight.write((weight.to(change) - factor * change).to(weight))
    weights = {one.weight.parameter: one.weight.read() for one in linears}
    return Result("rep-select", {"method": asdict(settings)}, weights)


def weight_gradients(
    loaded: LoadedModel, prepared: Sequence[Prepared], linears: Sequence[FfnLinear], rows: int, progress: Progress
) -> dict[str, Tensor]:
    """The gradient of minus the mean negative log-likelihood per answer token: subtracting it makes the loss larger.

    Args:
        loaded: The model; in evaluation mode meanwhile.
        prepared: The examples. How they are batched does not matter.
        linears: The maps whose weights are looked at.
        rows: Examples per backward pass.
        progress: Called with batches done and their number.

    Returns:
        By name of the weight, in its shape, in float32 or better.

    Raises:
        UserError: A gradient is not finite.
    """
    parameters = {one.weight.parameter: one.module.get_parameter("weight") for one in linears}
    sums = {
        name: torch.zeros_like(one, dtype=torch.promote_types(one.dtype, torch.float32))
        for name, one in parameters.items()
    }
    batches = [group[start : start + rows] for group in image_groups(prepared) for start in range(0, len(group), rows)]
    tokens = sum(len(item.answer_ids) for item in prepared)
    with restored(loaded.model), evaluating(loaded.model), torch.enable_grad():
        loaded.model.requires_grad_(False)
        for one in parameters.values():
            one.requires_grad_(True)
        for done, batch in enumerate(batches, 1):
            inputs = to_model(answer_batch([prepared[place] for place in batch], loaded.processor), loaded.model)
            loss = -answers(loaded.model, inputs).losses.sum() / tokens
            for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
                sums[name] += gradient
            progress(done, len(batches))
    for name, value in sums.items():
        if not bool(value.isfinite().all()):
            raise UserError(f"The gradient of {name} is not finite.", do="look for NaN in weights, or load in float32")
    return sums


def filtered(gradient: Tensor, of: Tensor, settings: RepSelectSettings) -> Tensor:
    """A gradient whose strongest components are collapsed, on one side or on both.

    Args:
        gradient: G: (outputs, inputs) of a map, in float32 or better.
        of: The gradient whose components U S V^T are taken: G itself, or that of the retain set.
        settings: ``collapse``, ``sides``, ``components`` and ``floor``.
    """
    if settings.collapse == "none":
        return gradient
    left, sizes, right = components(of, settings)
    if settings.sides != "outputs":
        gradient = _collapsed(gradient, right, sizes, settings.collapse)
    if settings.sides != "inputs":
        gradient = _collapsed(gradient.T, left, sizes, settings.collapse).T
    return gradient


def components(gradient: Tensor, settings: RepSelectSettings) -> tuple[Tensor, Tensor, Tensor]:
    """U (outputs, k), S (k,) and V (inputs, k): exact, or by a seeded sketch where there are far more than wanted."""
    if min(gradient.shape) <= 4 * settings.components + OVERSAMPLING:
        left, sizes, adjoint = torch.linalg.svd(gradient, full_matrices=False)
        right = adjoint.T
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            left, sizes, right = torch.svd_lowrank(gradient, q=settings.components + OVERSAMPLING, niter=4)
    kept = min(settings.components, int((sizes > settings.floor * sizes[0]).sum()))
    return left[:, :kept], sizes[:kept], right[:, :kept]


def _collapsed(matrix: Tensor, basis: Tensor, sizes: Tensor, how: str) -> Tensor:
    """Shrink what a matrix (n, columns) has along a basis (columns, k)."""
    if not len(sizes):
        return matrix
    along, ratios = matrix @ basis, sizes / sizes[-1]
    left = {"soft": along / ratios, "quadratic": along / ratios.square(), "hard": torch.zeros_like(along)}[how]
    return matrix - (along - left) @ basis.T


def _factor(changes: Mapping[str, Tensor], linears: Sequence[FfnLinear], settings: RepSelectSettings) -> float:
    """What the filtered gradients are multiplied by."""
    norm = math.sqrt(sum(float(change.double().square().sum()) for change in changes.values()))
    if norm == 0:
        raise UserError("Nothing is left of the gradient.", do="collapse less: --set collapse=soft, or a larger floor")
    if settings.rate is not None:
        return settings.rate
    whole = math.sqrt(sum(float(one.weight.read().double().square().sum()) for one in linears))
    return settings.size * whole / norm
