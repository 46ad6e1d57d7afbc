"""From what was measured at one value matrix to the directions to be weakened there."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from kvw.edits.low_rank import Directions
from kvw.errors import UserError
from kvw.measuring.moments import Moment, Tokens
from kvw.measuring.retain_rows import RetainRows
from kvw.methods.bounds import DistortionBounds
from kvw.methods.subspace import bounds, gates
from kvw.methods.subspace.cross_validation import cross_validated
from kvw.methods.subspace.instead import first_token_mean, replacing
from kvw.methods.subspace.labels import EveryThirdView, Labels
from kvw.methods.subspace.null import LeftOut, least_threshold, null_eigenvalues, threshold
from kvw.methods.subspace.of_each import directions_of_each
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.solver import Metric, Modes, ReducedMetric, metric, reduced_metric, solve
from kvw.methods.subspace.vectors import Columns, view_means
from kvw.models.value_matrix import MatrixKey


@dataclass(frozen=True)
class Measurements:
    """What was measured at one value matrix.

    Args:
        key: Which one.
        moment: Moment of the retain set; or rows that stand for it.
        forget: Tokens of the forget set.
        null: Tokens of the retain examples that the threshold is measured with; None if there are none.
        weight: W with knowledge vectors as columns: (hidden, width); None if it is quantised.
    """

    key: MatrixKey
    moment: Moment | RetainRows
    forget: Tokens
    null: Tokens | None
    weight: Tensor | None


def find_directions(
    measured: Measurements,
    settings: SubspaceSettings,
    forget: Labels,
    retain: Labels,
    instead: Tensor | None = None,
) -> tuple[Directions, DistortionBounds, dict[Hashable, Directions]]:
    """Solve for the directions with much more forget than retain energy, and decide how much to weaken each.

    Args:
        measured: At one value matrix.
        settings: See :class:`~kvw.methods.subspace.settings.SubspaceSettings`.
        forget: Labels of the forget set.
        retain: Labels of the retain set.
        instead: r, whose output takes the place of what is taken out: (width,); None for nothing.

    Returns:
        The directions, what is known of them, and the directions of each subject by itself.

    Raises:
        UserError: The retain moment is singular, or cross-validation lacks what it needs.
    """
    # F has one column for each fact: the mean of its tokens and views, so that long answers count no more.
    fitted, held_out = split_views(measured.forget, forget)
    columns = view_means(fitted, forget)
    checked = view_means(held_out, forget) if held_out is not None else None
    retain_metric = _retain_metric(measured, columns, checked, settings)
    modes = solve(retain_metric, columns.values)
    left_out = null = null_tokens = None
    if measured.null is not None and bool(measured.null.weights.any()):  # none with sources.answer=0
        # Retain tokens stand for what is new about known subjects. Taken out of S again, they say what lambda looks
        # like where nothing is to be forgotten.
        null_tokens = _thinned(measured.null, retain, 2 * len(columns.weights))
        null = view_means(null_tokens, retain)
        shares = measured.moment.shares_of(null_tokens)
        left_out = LeftOut.of(retain_metric, null_tokens.coefficients.T.to(modes.filters), shares)
    least = least_threshold(retain_metric.shrinkage, measured.moment.shares["answer"])
    tau = _threshold(settings, least, left_out, null, len(columns.weights))
    ratios = None
    if checked is not None:
        ratios = bounds.held_out_eigenvalues(
            modes.filters, checked.values.to(modes.filters), _retain_energies(modes, left_out, null_tokens)
        )
    log_gates = _log_gates(modes, ratios, settings, tau)
    # modes come with the largest lambda first
    strongest = (log_gates < 0).nonzero()[:, 0][: settings.rank]
    chosen, log_gates = modes.chosen(strongest), log_gates[strongest]
    if instead is not None:
        chosen = replacing(chosen, first_token_mean(columns, fitted), instead)
    held = None if ratios is None else ratios[strongest]
    entry = _bounds_of(measured, retain_metric, columns, chosen, log_gates, held, tau, settings)
    of_each = directions_of_each(retain_metric, columns, settings, tau) if forget.subjects is not None else {}
    return Directions(chosen.patterns, chosen.filters, log_gates), entry, of_each


def split_views(tokens: Tokens, labels: Labels) -> tuple[Tokens, Tokens | None]:
    """Keep every third view of a fact out, if every fact has three.

    Returns:
        Tokens to find directions with, and tokens to check them with (None: all are needed to find them).
    """
    rows = sorted(set(tokens.rows.tolist()))
    keep_out = EveryThirdView(labels)
    held_rows = [row for row in rows if keep_out(row)]
    if {labels.fact(row) for row in rows} != {labels.fact(row) for row in held_rows}:
        return tokens, None
    held = torch.isin(tokens.rows, torch.tensor(held_rows))
    return tokens.chosen(~held), tokens.chosen(held)


def _thinned(tokens: Tokens, labels: Labels, columns: int) -> Tokens:
    """About ``columns`` columns of facts from all over the set: more would only cost time."""
    facts = list(dict.fromkeys(labels.fact(row) for row in tokens.rows.tolist()))
    stride = -(-len(view_means(tokens, labels).weights) // columns)
    kept = set(facts[::stride])
    return tokens.chosen(torch.tensor([labels.fact(row) in kept for row in tokens.rows.tolist()]))


def _retain_metric(
    measured: Measurements, columns: Columns, checked: Columns | None, settings: SubspaceSettings
) -> Metric | ReducedMetric:
    if isinstance(measured.moment, RetainRows):
        if isinstance(settings.shrinkage, str):
            raise ValueError("a sample of retain rows has no folds")
        device = measured.forget.coefficients.device if measured.weight is None else measured.weight.device
        return reduced_metric(measured.moment.vectors.to(device), settings.shrinkage)
    return metric(measured.moment.mean, _shrinkage(measured, measured.moment, columns, checked, settings))


def _shrinkage(
    measured: Measurements, moment: Moment, columns: Columns, checked: Columns | None, settings: SubspaceSettings
) -> float:
    if not isinstance(settings.shrinkage, str):
        return settings.shrinkage
    folds = moment.folds
    if measured.weight is None or checked is None or len(folds) < 2:
        lacks = "a second group of retain subjects" if checked is not None else "three views of every forget fact"
        raise UserError(
            f"The shrinkage at {measured.key} cannot be cross-validated.",
            found=f"it lacks {'weights that are not quantised' if measured.weight is None else lacks}",
            do="give the shrinkage as a number, 0.1 for instance",
        )
    return cross_validated(folds, measured.weight.to(folds[0].device), columns.values, checked.values)


def _threshold(
    settings: SubspaceSettings, least: float, left_out: LeftOut | None, null: Columns | None, count: int
) -> float:
    """tau. The Wiener gate has no threshold of its own, but what equal sets could show is no reason to weaken."""
    if settings.threshold is not None:
        return settings.threshold
    if settings.gate == "wiener" or left_out is None or null is None:
        return least
    return threshold(null_eigenvalues(left_out, null, count), settings.quantile, least)


def _retain_energies(modes: Modes, left_out: LeftOut | None, null: Tokens | None) -> Tensor:
    """Mean squares of left-out tokens along the filters; 1, what S says, without them."""
    if left_out is None or null is None:
        return torch.ones_like(modes.eigenvalues)
    projections = null.coefficients.to(modes.filters) @ modes.filters
    energies = left_out.projected(projections).square()
    weights = null.weights.to(energies)
    return (weights @ energies) / weights.sum()


def _log_gates(modes: Modes, ratios: Tensor | None, settings: SubspaceSettings, tau: float) -> Tensor:
    """How much each mode is to be weakened: (modes,), 0 where it is not."""
    if settings.held_out_ratio == 0:
        return gates.log_gates(modes.eigenvalues, settings, tau).masked_fill(0.5 * modes.eigenvalues.log() <= tau, 0)
    # An expert may have seen no fact three times: nothing is known to be safe there.
    gating = torch.zeros_like(modes.eigenvalues) if ratios is None else ratios
    # lambda on the vectors that the directions were fitted to is too large; held-out views say what is real.
    decisive = torch.minimum(modes.eigenvalues, gating)
    weak = (0.5 * decisive.log() <= tau) | (gating < settings.held_out_ratio)
    return gates.log_gates(decisive, settings, tau).masked_fill(weak, 0)


def _bounds_of(
    measured: Measurements,
    found: Metric | ReducedMetric,
    columns: Columns,
    modes: Modes,
    log_gates: Tensor,
    ratios: Tensor | None,
    tau: float,
    settings: SubspaceSettings,
) -> DistortionBounds:
    shares = bounds.participation_ratio(modes.filters, columns)
    lost = bounds.inseparable(found, columns, tau)
    distortion = relative = None
    at_sources: dict[str, float] = {}
    if measured.weight is not None:
        weight = measured.weight.to(modes.patterns.device)
        exponents, energy = settings.strength * log_gates, found.output_energy(weight)
        distortion = bounds.distortion(weight, modes.patterns, exponents)
        relative = distortion / energy
        if found.shrinkage < 1:
            raw = bounds.raw_distortion_bound(weight, modes.patterns, modes.filters, exponents, found)
            at_sources = bounds.source_bounds(raw / energy, measured.moment.shares)
    return DistortionBounds(
        key=str(measured.key),
        shrinkage=found.shrinkage,
        threshold=tau,
        subjects=len(set(columns.subjects)),
        inseparable=tuple(lost),
        eigenvalues=tuple(modes.eigenvalues.tolist()),
        held_out_eigenvalues=None if ratios is None else tuple(ratios.tolist()),
        gates=tuple((settings.strength * log_gates).exp().tolist()),
        participation_ratio=tuple(shares.tolist()),
        resistance=tuple(bounds.resistance(modes.filters, found.moment).tolist()),
        distortion=distortion,
        relative_distortion=relative,
        source_bounds=at_sources,
    )
