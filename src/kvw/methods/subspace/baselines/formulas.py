"""What each baseline of subspace weakening does to one value matrix: W' = W T, T = I + U (g - 1) V^T.

All come out with V^T U = I, so that T(t) is T to the power t for each of them, and T(-1) undoes it if no gate is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kvw.edits.low_rank import REMOVED
from kvw.errors import UserError
from kvw.methods.steering.null_space import emptiest
from kvw.methods.subspace.baselines.settings import (
    BaselineSettings,
    DeepUnlearningSettings,
    ForgetComponentsSettings,
    LeaceSettings,
    MemitZeroSettings,
    OutputSideSettings,
    RmsKvwSettings,
    VlEraserSettings,
)
from kvw.methods.subspace.gates import exponential, hard, wiener
from kvw.methods.subspace.shrinkage import floored_diagonal
from kvw.methods.subspace.solver import metric, modes_of, solve


@dataclass(frozen=True)
class Given:
    """What is known of one value matrix, all in float64 and on one device.

    Args:
        weight: W with knowledge vectors as columns: (hidden, width); None if it is quantised.
        moment: C, the second moment of the retain set: (width, width).
        vectors: F with F F^T that of the forget set: (width, n).
    """

    weight: Tensor | None
    moment: Tensor
    vectors: Tensor


class Found(NamedTuple):
    """Directions as :class:`kvw.edits.low_rank.Directions` takes them, before they are rounded.

    Args:
        patterns: U: (width, rank).
        filters: V, with V^T U = I: (width, rank).
        log_gates: log g, at most 0: (rank,).
    """

    patterns: Tensor
    filters: Tensor
    log_gates: Tensor


def memit_zero(given: Given, settings: MemitZeroSettings) -> Found:
    """MEMIT's update (arXiv 2210.07229) with zero as the wanted output: W' = W mu^-1 S (mu^-1 S + F F^T)^-1."""
    modes = solve(metric(given.moment, settings.shrinkage), given.vectors)
    return Found(modes.patterns, modes.filters, wiener(modes.eigenvalues, settings.mu))


def leace(given: Given, settings: LeaceSettings) -> Found:
    """LEACE's oblique projection (arXiv 2306.03819) with forget vectors as the concept.

    With a rank of at least n, W' F = 0 and the outputs of the retain set change least. Moments are about 0, not about
    the mean: a value projection without bias cannot add the mean again.
    """
    modes = solve(metric(given.moment, settings.shrinkage), given.vectors)
    modes = modes.chosen(torch.arange(min(settings.rank, modes.rank), device=modes.patterns.device))
    return Found(modes.patterns, modes.filters, hard(modes.eigenvalues, -float("inf")))


def deep_unlearning(given: Given, settings: DeepUnlearningSettings) -> Found:
    """Two soft projectors (Deep Unlearning, arXiv 2312.00761): W' = W (I - (I - M_r) M_f).

    M = sum over eigenvectors q of a moment with share s of its trace of alpha s / ((alpha - 1) s + 1) q q^T. With
    M_f = Q K Q^T, A = (I - M_r) Q K^1/2 and B = Q K^1/2, T = I - A B^T. B^T A = P N P^T is symmetric, so that
    U = A P N^-1/2, V = B P N^-1/2 and g = 1 - N say the same with V^T U = I.
    """
    share = given.moment / given.moment.trace()
    identity = torch.eye(len(share), dtype=share.dtype, device=share.device)
    basis, sizes, _ = torch.linalg.svd(given.vectors, full_matrices=False)  # Q: (width, n), (n,)
    shares = sizes.square() / sizes.square().sum()
    roots = (settings.alpha_f * shares / ((settings.alpha_f - 1) * shares + 1)).sqrt()
    # M_r Q, without writing M_r out: the share of each column that the retain set claims. (width, n)
    kept = settings.alpha_r * share @ torch.linalg.solve((settings.alpha_r - 1) * share + identity, basis)
    left, right = (basis - kept) * roots, basis * roots
    product = right.T @ left  # B^T A: (n, n), symmetric but for rounding
    removed, rotation = torch.linalg.eigh((product + product.T) / 2)
    # What is below rounding moves no output by more than the root of it.
    wanted = removed > 10 * len(removed) * torch.finfo(removed.dtype).eps
    rotation = rotation[:, wanted] * removed[wanted].rsqrt()
    log_gates = torch.log1p(-removed[wanted].clamp(max=1)).clamp(min=REMOVED)
    return Found(left @ rotation, right @ rotation, log_gates)


def forget_components(given: Given, settings: ForgetComponentsSettings) -> Found:
    """The strongest principal components of the forget vectors are removed: W' = W (I - Q Q^T).

    Nullu (arXiv 2412.13817) does so with differences of features. Nothing looks at the retain set.
    """
    basis, sizes, _ = torch.linalg.svd(given.vectors, full_matrices=False)
    # Directions below rounding are noise of the decomposition, not of the data.
    used = int((sizes > sizes.max() * len(sizes) * torch.finfo(sizes.dtype).eps).sum()) if len(sizes) else 0
    basis = basis[:, : min(settings.rank, used)]
    return Found(basis, basis, basis.new_full(basis.shape[1:], REMOVED))


def vl_eraser(given: Given, settings: VlEraserSettings) -> Found:
    """VL-Eraser's distillation and deletion (CVPR 2026) as least squares: W' = W (I - C_f P (P C_f P + gamma I)^-1 P).

    P = Q Q^T projects on the null space of the retain set. Of all X P the one with X P f nearest to W f on the forget
    vectors is subtracted. In the pencil's terms P stands for S^-1 and 1 / gamma for mu: V^T U = I holds.
    """
    basis, _ = emptiest(given.moment, ratio=0.0, energy=settings.energy)
    inside = basis @ (basis.T @ given.vectors)  # P F: (width, n)
    modes = modes_of(inside.T @ inside, given.vectors, inside)
    gamma = settings.ridge * modes.eigenvalues.amax() if modes.rank else 1.0
    return Found(modes.patterns, modes.filters, wiener(modes.eigenvalues / gamma, 1.0))


def output_side(given: Given, settings: OutputSideSettings) -> Found:
    """The same edit on outputs o = W m: W' = P W with P = mu^-1 S_o (mu^-1 S_o + W F (W F)^T)^-1.

    It is (width / hidden)^3 cheaper, and blind to what W merges. With P = I + U_o (g - 1) V_o^T, V = W^T V_o and
    U = F F^T V Lambda^-1 make W T = P W, because W U = W F F^T W^T V_o Lambda^-1 = S_o V_o = U_o.

    Raises:
        UserError: The weight is quantised.
    """
    if given.weight is None:
        raise UserError(
            "Edits on the output side are made from the weights, and these are quantised.",
            do="use the full-precision checkpoint, or a method that looks only at coefficients: memit-zero",
        )
    # S_o = W C W^T: (hidden, hidden)
    outputs = metric(given.weight @ given.moment @ given.weight.T, settings.shrinkage)
    modes = solve(outputs, given.weight @ given.vectors)
    filters = given.weight.T @ modes.filters  # V = W^T V_o: (width, rank)
    patterns = given.vectors @ (given.vectors.T @ filters) / modes.eigenvalues
    return Found(patterns, filters, wiener(modes.eigenvalues, settings.mu))


def rms_log_gates(given: Given, settings: RmsKvwSettings) -> Tensor:
    """Both moments forced to be diagonal: log g_i = -gamma max(0, log(rms_f,i / rms_r,i)).

    Returns:
        One for each knowledge vector: (width,).
    """
    ratio = given.vectors.square().sum(1) / floored_diagonal(given.moment.diagonal())
    return exponential(ratio.clamp(min=torch.finfo(ratio.dtype).tiny), settings.gamma, 0.0)


FORMULAS: dict[type[BaselineSettings], Callable[[Given, Any], Found]] = {
    MemitZeroSettings: memit_zero,
    LeaceSettings: leace,
    DeepUnlearningSettings: deep_unlearning,
    ForgetComponentsSettings: forget_components,
    OutputSideSettings: output_side,
    VlEraserSettings: vl_eraser,
}
"""All but :func:`rms_log_gates`, which gives gates of single knowledge vectors."""
