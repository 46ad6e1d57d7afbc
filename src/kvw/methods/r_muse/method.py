"""R-MUSE from a loaded model and examples: subspaces, thresholds, rotations; see docs/methods/r-muse.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from kvw.data import Example
from kvw.edits.edit import EditMetadata
from kvw.edits.rotation import Rotation, RotationEdit
from kvw.methods.method import LoadedModel, Unlearned
from kvw.methods.r_muse.settings import RMuseSettings
from kvw.methods.steering.direction import refusal_pairs
from kvw.methods.steering.gate import FAIR_AUC, HELD_OUT, auc
from kvw.methods.steering.method import check_not_empty
from kvw.methods.steering.null_space import principal_space
from kvw.methods.steering.states import read_states, read_tokens, readings
from kvw.models.layer_inputs import decoder_layers
from kvw.progress import Progress

ALL = 2**30
"""More states than any answer has."""


@dataclass(frozen=True)
class States:
    """States of one layer at the positions that predict answer tokens, float32.

    Args:
        recall: Means over the forget set's answers: (examples, hidden).
        erasure: Means over refusals to the same questions: (examples, hidden).
        forget: Of single tokens of the forget set's answers: (tokens, hidden).
        retain: Of single tokens of the retain set's answers: (tokens, hidden).
        samples: Which retain example each of these is of: (tokens,), int64.
    """

    recall: Tensor
    erasure: Tensor
    forget: Tensor
    retain: Tensor
    samples: Tensor


def r_muse(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: RMuseSettings,
    progress: Progress | None = None,
) -> Unlearned:
    """Find what sets answers and refusals of the forget set apart, and turn states out of it.

    The model stays as it was. States of all layers are kept in memory meanwhile, in float32: ``tokens`` of each retain
    example, and all of the forget set's answers.

    Args:
        loaded: The model, of a known family.
        forget: Examples whose knowledge must go; never empty.
        retain: Examples whose knowledge must stay; never empty.
        settings: See :class:`~kvw.methods.r_muse.settings.RMuseSettings`.
        progress: Called with batches done in the current pass and their total.

    Raises:
        UserError: An example or the model is not usable, a set is empty, or the layers do not fit.
    """
    check_not_empty(forget, retain)
    model, processor = loaded.model, loaded.processor
    layers = settings.chosen_layers(len(decoder_layers(model)))
    pairs = refusal_pairs(forget, processor, settings.seed, model.config)
    known, refused = (readings(side, processor, predicting=True) for side in (pairs.recall, pairs.erasure))
    tokens, owners = read_tokens(model, known, layers, ALL, progress=progress)
    erased = read_states(model, refused, layers, progress=progress)
    kept = readings(loaded.prepare(retain), processor, predicting=True)
    others, samples = read_tokens(model, kept, layers, settings.tokens, progress=progress)
    rotations, worth = {}, {}
    for layer in layers:
        own = tokens.pop(layer)
        states = States(means(own, owners), erased.pop(layer), own, others.pop(layer), samples)
        rotations[layer], worth[layer] = fit_layer(states, settings)
    values = asdict(settings) | {"layers": (layers[0], layers[-1])}
    edit = RotationEdit(rotations, settings.angle, metadata=EditMetadata(method="r-muse", settings=values))
    return Unlearned(edit, warnings=tuple(_warnings(worth)))


def means(states: Tensor, owners: Tensor) -> Tensor:
    """The mean state of each example: states (tokens, hidden), owners (tokens,) from 0; (examples, hidden)."""
    count = int(owners.max()) + 1
    sums = states.new_zeros(count, states.shape[1]).index_add(0, owners, states)
    return sums / owners.bincount(minlength=count)[:, None].to(states)


def forget_subspace(differences: Tensor, settings: RMuseSettings) -> Tensor:
    """V: what the differences between answers and refusals span, (hidden, k) with orthonormal columns, float64.

    Standardised, each dimension is divided by its standard deviation over the examples; the mean stays in, since it is
    what all answers have and all refusals lack. Directions are found there, and brought back.

    Args:
        differences: Mean states of answers less those of refusals: (examples, hidden).
        settings: ``energy``, ``standardised`` and ``rank``.
    """
    differences = differences.double()
    scale = torch.ones_like(differences[0])
    if settings.standardised and len(differences) > 1:
        scale = differences.std(0)
        scale = scale.clamp(min=1e-3 * float(scale.median()))  # a dimension that never varies would drown the others
        scale = scale.where(scale > 0, 1)
    found = principal_space(differences / scale, energy=settings.energy, rank=settings.rank)
    orthonormal: Tensor = torch.linalg.qr(scale[:, None] * found).Q
    return orthonormal


def retained_share(states: Tensor, basis: Tensor) -> Tensor:
    """|Q^T h| / |h| of states (tokens, hidden): (tokens,), float64, from 0 to 1."""
    states = states.double()
    shares: Tensor = (states @ basis).norm(dim=1) / states.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    return shares


def fit_layer(states: States, settings: RMuseSettings) -> tuple[Rotation, float]:
    """The rotation of one layer, and how often a forget state has a smaller share in the retain subspace than a
    held-out retain state: its AUC.

    With fewer than five retain examples nothing is held out, and the shares are those of states that were seen.
    """

    def basis_of(some: Tensor) -> Tensor:
        return principal_space(some, energy=settings.retain_energy, rank=settings.rank)

    basis = basis_of(states.retain)
    held = states.samples % HELD_OUT == HELD_OUT - 1
    judged = basis_of(states.retain[~held]) if bool(held.any()) else basis
    shares = retained_share(states.retain[held] if bool(held.any()) else states.retain, judged)
    threshold = settings.threshold
    if threshold is None:
        threshold = float(shares.quantile(1 - settings.spared))
    forget = forget_subspace(states.recall - states.erasure, settings)
    worth = auc(shares, retained_share(states.forget, judged))
    return Rotation(forget, basis, threshold), worth


def _warnings(worth: dict[int, float]) -> list[str]:
    poor = [layer for layer, value in worth.items() if value < FAIR_AUC]
    if not poor:
        return []
    best = max(worth, key=lambda layer: worth[layer])
    return [
        f"In {len(poor)} of {len(worth)} layers the share of a state in the retain subspace does not tell the forget "
        f"set from held-out retain examples (AUC below {FAIR_AUC}; best in layer {best}, {worth[best]:.2f}): others "
        "are turned as well. Take more retain examples, or another retain_energy or rank."
    ]
