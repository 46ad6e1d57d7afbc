"""What can be said about an edit before it is tried: what it costs, what it is worth, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from kvw.methods.bounds import DistortionBounds
from kvw.methods.subspace.solver import Metric, ReducedMetric, ReducedMoment
from kvw.methods.subspace.vectors import Columns


def distortion(weight: Tensor, patterns: Tensor, log_gates: Tensor) -> float:
    """E_S |(W' - W) m|^2 = |B|_F^2 with B = W U (g - 1): the change of outputs on the retain set, without a data pass.

    It holds because W' - W = B V^T and V^T S V = I.

    Args:
        weight: W with knowledge vectors as columns: (hidden, width).
        patterns: U: (width, rank).
        log_gates: (rank,).
    """
    return float(_outputs(weight, patterns, log_gates).square().sum())


def raw_distortion_bound(
    weight: Tensor, patterns: Tensor, filters: Tensor, log_gates: Tensor, found: Metric | ReducedMetric
) -> float:
    """Upper bound of E |(W' - W) m|^2 under the unshrunk C: (|B|^2 - rho tr(B V^T D V B^T)) / (1 - rho).

    It is equal to it unless dead neurons were floored.

    Args:
        weight: W with knowledge vectors as columns: (hidden, width).
        patterns: U: (width, rank).
        filters: V: (width, rank).
        log_gates: (rank,).
        found: S = (1 - rho) C + rho D, D its diagonal; rho below 1.
    """
    outputs = _outputs(weight, patterns, log_gates)  # B: (hidden, rank), with W' - W = B V^T
    # E_S |B V^T m|^2 = tr(B V^T S V B^T) = |B|^2. The part of rho D in it is taken off, and C is what is left.
    diagonal = found.moment.diagonal().to(filters)[:, None]
    by_diagonal = ((outputs.T @ outputs) * (filters.T @ (diagonal * filters)).to(outputs)).sum()
    return float((outputs.square().sum() - found.shrinkage * by_diagonal) / (1 - found.shrinkage))


def source_bounds(raw: float, shares: Mapping[str, float]) -> dict[str, float]:
    """E_source |(W' - W) m|^2 <= E |(W' - W) m|^2 / share, because C holds share times the source's moment.

    Args:
        raw: From :func:`raw_distortion_bound`.
        shares: What share of C each source has; those without any are left out.
    """
    return {name: raw / share for name, share in shares.items() if share > 0}


def held_out_eigenvalues(filters: Tensor, held_out: Tensor, retain_energies: Tensor) -> Tensor:
    """lambda where it was not fitted: forget energy of held-out views over retain energy of left-out examples.

    Args:
        filters: V: (width, rank).
        held_out: F of held-out views: (width, m).
        retain_energies: Mean of (v^T m)^2 over retain examples that the filters have not seen: (rank,).

    Returns:
        (rank,), float64.
    """
    forget = (filters.T @ held_out.to(filters)).double().square().sum(1)
    return forget / retain_energies.double().clamp(min=torch.finfo(torch.float32).tiny)


def participation_ratio(filters: Tensor, columns: Columns) -> Tensor:
    """The participation ratio of the subjects in a direction, as a share of them: (sum_j e_j)^2 / (J sum_j e_j^2).

    e_j is the mean energy of subject j in the direction. The result is 1 if all have the same energy in it, as in a
    direction of the question's form; 1 / J if one has it all.

    Args:
        filters: V: (width, rank).
        columns: Forget vectors.

    Returns:
        (rank,), float64.
    """
    numbers: dict[Hashable, int] = {}
    index = torch.tensor([numbers.setdefault(subject, len(numbers)) for subject in columns.subjects])
    energies = (filters.T @ columns.values.to(filters)).double().square().cpu()  # (rank, n)
    # Columns hold the root of their weight, so squares hold the weight itself: dividing by sums of weights gives means.
    totals = energies.new_zeros(len(energies), len(numbers)).index_add_(1, index, energies)
    means = totals / totals.new_zeros(len(numbers)).index_add_(0, index, columns.weights)
    return means.sum(1).square() / (len(numbers) * means.square().sum(1))


def resistance(filters: Tensor, moment: Tensor | ReducedMoment) -> Tensor:
    """R = lambda_max(C_r) |v|^2: how many times slower retraining on retain data restores a direction than its fastest.

    Directions with little retain energy have long filters and come back slowly. Derived for one linear layer by itself.

    Args:
        filters: V: (width, rank).
        moment: C_r, or S: (width, width).

    Returns:
        (rank,), float64.
    """
    vector = moment.diagonal().clone()  # power iteration, from where the energy lies
    for _ in range(50):
        vector = moment @ (vector / vector.norm())
    return float(vector.norm()) * filters.double().square().sum(0)


def inseparable(found: Metric | ReducedMetric, columns: Columns, threshold: float) -> list[int]:
    """Which subjects have no direction above the threshold when each is taken by itself.

    Those are not forgotten, most often because the retain set holds them too.

    Args:
        found: S.
        columns: Forget vectors.
        threshold: tau.

    Returns:
        Their numbers, in the order in which subjects appear.
    """
    gram = found.gram(columns.values)
    lost = []
    for number, subject in enumerate(dict.fromkeys(columns.subjects)):
        own = torch.tensor([place for place, other in enumerate(columns.subjects) if other == subject])
        # lambda of the subject's own columns: the eigenvalues of F_j F_j^T against S are those of F_j^T S^-1 F_j.
        largest = torch.linalg.eigvalsh(gram[own][:, own])[-1]
        if 0.5 * largest.log() <= threshold:
            lost.append(number)
    return lost


def separation_warnings(found: Sequence[DistortionBounds], counted: str = "forget subjects") -> list[str]:
    """What was found for all value matrices says together about a request that may fail.

    Args:
        found: One for each value matrix.
        counted: What a subject is: without subjects in the data, every example is one.
    """
    if not found:
        return []
    if not any(gate < 1 for entry in found for gate in entry.gates):
        return [
            "Forget and retain set cannot be told apart in any layer, so nothing was weakened. "
            "Is the forget set in the retain set too?"
        ]
    lost = set.intersection(*(set(entry.inseparable) for entry in found))
    if not lost:
        return []
    return [
        f"{len(lost)} of {found[0].subjects} {counted} cannot be told from the retain set in any layer and will "
        "hardly be forgotten. Are they in it too?"
    ]


def _outputs(weight: Tensor, patterns: Tensor, log_gates: Tensor) -> Tensor:
    """B = W U (g - 1): (hidden, rank), float64."""
    return (weight.to(patterns) @ patterns).double() * torch.expm1(log_gates.double())
