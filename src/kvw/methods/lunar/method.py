"""LUNAR's least squares in closed form; see docs/methods/lunar.md.

The authors train one value matrix W so that W m goes where it went, moved by rho, for forget questions, and stays for
others. With squared errors that is E_r |dW m|^2 + mu E_f |dW m - rho|^2, whose minimum is dW = rho a^T with
a = mu (S + mu C_f)^-1 E_f[m]: one direction. As an edit of coefficients it is W' = W (I + u a^T) with W u = rho.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data import Example, prepare
from kvw.edits.edit import EditMetadata
from kvw.edits.low_rank import REMOVED, Directions, LowRankEdit
from kvw.errors import UserError
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.moments import Tokens
from kvw.measuring.plans import Examples
from kvw.methods.lunar.settings import LunarSettings
from kvw.methods.method import LoadedModel, Unlearned
from kvw.methods.steering.neutral import neutral_pairs
from kvw.methods.steering.states import read_states, readings
from kvw.methods.subspace.baselines.method import token_vectors
from kvw.methods.subspace.examples import labelled
from kvw.methods.subspace.solver import Modes, metric, solve
from kvw.models.finding import find_value_matrices
from kvw.models.layer_inputs import decoder_layers
from kvw.models.quantised import refuse_quantised
from kvw.models.value_matrix import ValueMatrix
from kvw.progress import Progress

RIDGE = 1e-9
"""Of the mean squared length of what comes out of W, where W u = rho is solved."""


def lunar(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: LunarSettings,
    progress: Progress | None = None,
) -> Unlearned:
    """Measure one layer and solve.

    The model stays as it was. What refused questions look like is read on the neutral pairs that come with kvw.

    Args:
        loaded: The model, of a known family, not quantised.
        forget: Examples whose knowledge must go; never empty.
        retain: Examples whose knowledge must stay; never empty.
        settings: See :class:`~kvw.methods.lunar.settings.LunarSettings`.
        progress: Called with batches done in the current pass and their total.

    Raises:
        UserError: An example or the model is not usable, or the second moment of the retain set is singular.
    """
    matrix = matrix_of(loaded.model, settings)
    refuse_quantised(matrix.name, matrix.module)
    forget_batches, forget_labels = labelled(loaded, forget)
    retain_batches, retain_labels = labelled(loaded, retain)
    examples = Examples(retain_labels.weights())
    moments, _ = measure_moments(
        loaded.model, retain_batches, [matrix], sources=settings.sources, examples=examples, progress=progress
    )
    tokens = measure_tokens(loaded.model, forget_batches, [matrix], weights=forget_labels.weights(), progress=progress)[
        matrix.key
    ]
    if settings.positions == "prompt":
        tokens = tokens.chosen(tokens.offsets == 0)
    moment = moments[matrix.key].mean.double()
    modes = solve(metric(moment, settings.shrinkage), token_vectors(tokens, moment.device))
    reading = filter_of(modes, mean_of(tokens).to(moment), settings.mu)
    weight = matrix.read().T if matrix.vectors_first else matrix.read()
    shift = settings.distance * way_to_refusals(loaded, forget, matrix.key.layer, progress)
    pattern = coefficients_for(weight.double(), shift.to(weight.device))
    # (g - 1) = -1 for a gate of 0, so that I + U (g - 1) V^T = I + u a^T.
    found = Directions(-pattern[:, None].cpu(), reading[:, None].cpu(), torch.tensor([REMOVED]))
    metadata = EditMetadata(method="lunar", settings=asdict(settings) | {"layer": matrix.key.layer})
    return Unlearned(LowRankEdit({matrix.key: found}, metadata=metadata))


def matrix_of(model: PreTrainedModel, settings: LunarSettings) -> ValueMatrix:
    """The value matrix of the chosen layer.

    Raises:
        UserError: There is no such layer, or it has experts.
    """
    layer = settings.chosen_layer(len(decoder_layers(model)))
    found = [matrix for matrix in find_value_matrices(model) if matrix.key.layer == layer]
    if len(found) != 1:
        raise UserError(
            "LUNAR changes one dense value matrix.",
            found=f"{len(found)} in layer {layer}",
            do="give another layer, or use subspace",
        )
    return found[0]


def mean_of(tokens: Tokens) -> Tensor:
    """E_f[m]: (width,), float64."""
    weights = tokens.weights / tokens.weights.sum()
    mean: Tensor = tokens.coefficients.double().T @ weights
    return mean


def filter_of(modes: Modes, mean: Tensor, mu: float) -> Tensor:
    """a = mu (S + mu C_f)^-1 E_f[m], from the directions of the pencil of C_f and S.

    On the span of F the inverse is V (I + mu Lambda)^-1 V^T, and E_f[m] lies in it.

    Args:
        modes: All directions of the pencil.
        mean: E_f[m]: (width,).
        mu: Price of forget output.
    """
    filters = modes.filters.double()
    amounts = mu / (1 + mu * modes.eigenvalues) * (filters.T @ mean.double())
    found: Tensor = filters @ amounts
    return found


def coefficients_for(weight: Tensor, output: Tensor) -> Tensor:
    """The shortest u with W u = rho.

    Args:
        weight: W: (hidden, width), float64, with at least as many columns as rows.
        output: rho: (hidden,), float64.

    Raises:
        UserError: W does not reach rho.
    """
    gram = weight @ weight.T
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    found: Tensor = weight.T @ torch.linalg.solve(gram, output)
    missed = float((weight @ found - output).norm() / output.norm())
    if not missed < 1e-3:  # NaN, too
        raise UserError(
            "The value matrix cannot write what refusals need.",
            found=f"{missed:.1%} of it is out of reach",
            do="give another layer",
        )
    return found


def way_to_refusals(
    loaded: LoadedModel, forget: Sequence[Example], layer: int, progress: Progress | None = None
) -> Tensor:
    """From the forget questions to the neutral questions that the model is told not to know: the mean of what leaves a
    layer at the last prompt token, (hidden,), float64.

    Raises:
        UserError: A state is not finite, or the two are the same.
    """
    model, processor = loaded.model, loaded.processor
    _, refused = neutral_pairs(model.config)
    sides = (prepare(refused, processor, model.config), loaded.prepare(forget))
    there, here = (
        read_states(model, readings(side, processor), [layer + 1], progress=progress)[layer + 1] for side in sides
    )
    way = there.double().mean(0) - here.double().mean(0)
    if not bool(way.any()):
        raise UserError(
            "The model treats the forget questions like questions that it refuses, so there is nothing to move.",
            do="ask it: kvw evaluate MODEL --data FORGET",
        )
    return way
