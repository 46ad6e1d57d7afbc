"""From lambda, a direction's ratio of forget to retain energy, to the logarithm of its gate.

Weakening a direction by x = 1 - g costs retain output energy x^2 e and removes forget output energy at a rate lambda e:
lambda is the price list, whatever the value matrix is. All functions take lambda (rank,) and return log g (rank,) in
its dtype, at most 0; none leaves log space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kvw.edits.low_rank import REMOVED, removed_below
from kvw.methods.subspace.settings import SubspaceSettings


def exponential(eigenvalues: Tensor, gamma: float, threshold: float) -> Tensor:
    """log g = -gamma max(0, (1/2) log lambda - tau): KVW's gate on directions, with a threshold."""
    return -gamma * (0.5 * eigenvalues.log() - threshold).clamp(min=0)


def wiener(eigenvalues: Tensor, mu: float) -> Tensor:
    """g = 1 / (1 + mu lambda): the optimum of E_r |(W' - W) m|^2 + mu E_f |W' m|^2."""
    return -torch.log1p(mu * eigenvalues)


def thresholded_wiener(eigenvalues: Tensor, mu: float, threshold: float) -> Tensor:
    """g = 1 / (1 + mu max(0, lambda - lambda_0)), lambda_0 = exp(2 tau)."""
    return -torch.log1p(mu * (eigenvalues - math.exp(2 * threshold)).clamp(min=0))


def hard(eigenvalues: Tensor, threshold: float) -> Tensor:
    """g = 0 above the threshold, else 1."""
    above = 0.5 * eigenvalues.log() > threshold
    return torch.where(above, torch.full_like(eigenvalues, REMOVED), torch.zeros_like(eigenvalues))


def log_gates(eigenvalues: Tensor, settings: SubspaceSettings, threshold: float) -> Tensor:
    """The gate of the settings, with what is too small removed.

    Args:
        eigenvalues: lambda, above 0: (rank,).
        settings: Names the gate and its parameters.
        threshold: tau.
    """
    if settings.gate == "exponential":
        logs = exponential(eigenvalues, settings.gamma, threshold)
    elif settings.gate == "wiener":
        logs = wiener(eigenvalues, settings.mu)
    elif settings.gate == "thresholded wiener":
        logs = thresholded_wiener(eigenvalues, settings.mu, threshold)
    else:
        logs = hard(eigenvalues, threshold)
    return removed_below(logs, settings.smallest_gate)
