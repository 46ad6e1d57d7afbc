"""Baselines of subspace weakening: measured as it is, each solved in its own way; see docs/methods/subspace.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import EditMetadata
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.measuring.engine import Batch
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.moments import Moment, Tokens
from kvw.measuring.plans import Examples
from kvw.measuring.prefixes import SharedBatch
from kvw.methods.subspace.baselines.formulas import FORMULAS, Given, rms_log_gates
from kvw.methods.subspace.baselines.settings import BaselineSettings, RmsKvwSettings
from kvw.methods.subspace.directions import Measurements
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.method import check_repeatable, matrices_in, passes
from kvw.methods.subspace.solution import UNLABELLED, measurements, range_of, scattered
from kvw.methods.subspace.vectors import view_means
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.progress import Progress


def baseline(
    model: PreTrainedModel,
    forget: Iterable[Batch | SharedBatch],
    retain: Iterable[Batch | SharedBatch],
    settings: BaselineSettings,
    *,
    forget_labels: Labels = UNLABELLED,
    retain_labels: Labels = UNLABELLED,
    progress: Progress | None = None,
) -> LowRankEdit | GateEdit:
    """Make the edit of a baseline of subspace weakening; which one the class of the settings says.

    The model stays as it was. There is no threshold and no check on held-out views. Directions are as many as forget
    vectors, or as the settings allow; 8 bytes for each of them and each knowledge vector.

    Args:
        model: A loaded model of a known family.
        forget: Batches, as :func:`kvw.methods.subspace.method.subspace` takes them.
        retain: The same of the retain set.
        settings: Of one of the baselines, see :mod:`kvw.methods.subspace.baselines.settings`.
        forget_labels: Facts and subjects of the forget examples; subjects count the same, and facts matter where
            forget vectors are means over their views.
        retain_labels: The same of the retain examples.
        progress: Called with batches done in the current pass and their total (0 if unknown).

    Returns:
        Gates for ``rms-kvw``; directions for every value matrix in range for the others.

    Raises:
        UserError: A setting, a batch, a label or the model is not usable; nothing was changed.
    """
    matrices = matrices_in(model, settings)
    groups = passes(matrices, settings)
    if len(groups) > 1:
        check_repeatable({"forget": forget, "retain": retain})
    changes: dict[MatrixKey, Directions | Tensor | None] = {}
    for group in groups:
        moments, _ = measure_moments(
            model,
            retain,
            group,
            sources=settings.sources,
            examples=Examples(retain_labels.weights()),
            progress=progress,
        )
        tokens = measure_tokens(model, forget, group, weights=forget_labels.weights(), progress=progress)
        changes |= _solved(group, moments, tokens, settings, forget_labels)
    values = asdict(settings) | range_of(matrices)
    left_alone = tuple(str(key) for key, result in changes.items() if result is None)
    metadata = EditMetadata(method=settings.name, settings=values, left_alone=left_alone)
    if isinstance(settings, RmsKvwSettings):
        return GateEdit({key: gates for key, gates in changes.items() if isinstance(gates, Tensor)}, metadata)
    return LowRankEdit({key: one for key, one in changes.items() if isinstance(one, Directions)}, metadata=metadata)


def _solved(
    group: Sequence[ValueMatrix],
    moments: dict[MatrixKey, Moment],
    tokens: dict[MatrixKey, Tokens],
    settings: BaselineSettings,
    forget_labels: Labels,
) -> dict[MatrixKey, Directions | Tensor | None]:
    """What becomes of each value matrix: directions, or log-gates; None for an expert that saw too little."""

    def solve(matrix: ValueMatrix) -> Directions | Tensor | None:
        moment, vectors = moments.pop(matrix.key, None), tokens.pop(matrix.key, None)
        measured = measurements(matrix, moment, vectors, None, settings.min_tokens)
        if measured is None or moment is None:
            return None
        given = _given(measured, moment, settings, forget_labels)
        if isinstance(settings, RmsKvwSettings):
            return rms_log_gates(given, settings)
        return Directions(*FORMULAS[type(settings)](given, settings)).to(torch.device("cpu"))

    return {matrix.key: result for matrix, result in scattered(group, solve)}


def token_vectors(tokens: Tokens, device: torch.device) -> Tensor:
    """F with F F^T = E_f[m m^T] from single tokens: (width, n), float64, at most as many columns as rows.

    More tokens than neurons are put together: everything here depends on nothing but F F^T.

    Args:
        tokens: Coefficients at answer-predicting positions, at least one.
        device: Where to compute.
    """
    roots = (tokens.weights / tokens.weights.sum()).sqrt().to(device)
    vectors = tokens.coefficients.to(device).double().T * roots
    if vectors.shape[1] <= vectors.shape[0]:
        return vectors
    energies, basis = torch.linalg.eigh(vectors @ vectors.T)
    found: Tensor = basis * energies.clamp(min=0).sqrt()
    return found


def _given(measured: Measurements, retain: Moment, settings: BaselineSettings, labels: Labels) -> Given:
    moment = retain.mean.double()
    if settings.by_fact:
        vectors = view_means(measured.forget, labels).values.to(moment)
    else:
        vectors = token_vectors(measured.forget, moment.device)
    return Given(None if measured.weight is None else measured.weight.to(moment), moment, vectors)
