"""Directions of each subject by itself, beside those of all subjects together.

The strongest directions of many subjects together are those that they share. Others who resemble them have these, too,
and what is said of one subject is spread over many directions. So the eigenproblem is solved for the columns of each
subject alone, too, and the search for the strength of an edit tries these first.
"""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from kvw.edits.low_rank import MOST_OF_EACH, Directions
from kvw.methods.subspace import gates
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.solver import Metric, ReducedMetric, solve
from kvw.methods.subspace.vectors import Columns


def directions_of_each(
    found: Metric | ReducedMetric, columns: Columns, settings: SubspaceSettings, tau: float
) -> dict[Hashable, Directions]:
    """Solve for each subject by itself.

    Args:
        found: The retain metric.
        columns: Forget vectors of all subjects.
        settings: Of the method.
        tau: The threshold, see :mod:`kvw.methods.subspace.null`.

    Returns:
        Directions by subject, each biorthogonal by itself; empty if there is one subject, or more than
        :data:`MOST_OF_EACH`, or if settings judge directions by more than lambda.
    """
    subjects = dict.fromkeys(columns.subjects)
    if not 1 < len(subjects) <= MOST_OF_EACH or settings.held_out_ratio > 0 or settings.instead != "nothing":
        return {}
    return {subject: _of_one(found, columns.about(subject), settings, tau) for subject in subjects}


def _of_one(found: Metric | ReducedMetric, vectors: Tensor, settings: SubspaceSettings, tau: float) -> Directions:
    modes = solve(found, vectors)
    log_gates = gates.log_gates(modes.eigenvalues, settings, tau).masked_fill(0.5 * modes.eigenvalues.log() <= tau, 0)
    strongest = (log_gates < 0).nonzero()[:, 0][: settings.rank]
    chosen = modes.chosen(strongest)
    return Directions(chosen.patterns, chosen.filters, log_gates[strongest])
