"""Forget vectors: what the columns of F are."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from kvw.measuring.moments import Tokens
from kvw.methods.subspace.labels import Labels


@dataclass(frozen=True)
class Columns:
    """The columns of F, with F F^T = E_f[m m^T].

    Args:
        values: F: (width, n), float32 or float64.
        weights: What each counts in the mean, already in ``values`` as its root; they add up to 1: (n,), float64.
        mixing: How tokens T (width, tokens) make columns, F = T mixing: (tokens, n), float64.
        subjects: Subject of each column, n of them.
    """

    values: Tensor
    weights: Tensor
    mixing: Tensor
    subjects: tuple[Hashable, ...]

    def about(self, subject: Hashable) -> Tensor:
        """The columns of one subject, with weights that add up to 1: (width, its columns)."""
        own = torch.tensor([one == subject for one in self.subjects])
        return self.values[:, own] / self.weights[own].sum().sqrt()


def view_means(tokens: Tokens, labels: Labels) -> Columns:
    """Average tokens over the views of a fact; a fact with one view gives its tokens as they are.

    Almost every single token has a direction of its own that the retain set lacks. Weakening that erases the token;
    what all photos and phrasings of a fact share is the fact. Columns weigh what their tokens weigh together, so that
    F F^T is never above the second moment of the tokens.

    Args:
        tokens: Coefficients at answer-predicting positions, at least one.
        labels: The fact of every example. Views of one fact have the same answer, so that tokens correspond one to one.

    Returns:
        One column for each fact and answer position, in order of appearance.
    """
    rows, offsets = tokens.rows.tolist(), tokens.offsets.tolist()
    numbers: dict[tuple[Hashable, int], int] = {}
    places = zip(rows, offsets, strict=True)
    # Token k of one view corresponds to token k of another, since views of a fact have the same answer.
    own = [numbers.setdefault((labels.fact(row), offset), len(numbers)) for row, offset in places]
    subjects: dict[int, Hashable] = {column: labels.subject(row) for row, column in zip(rows, own, strict=True)}
    masses = tokens.weights.double()
    mixing = torch.zeros(len(rows), len(numbers), dtype=torch.float64)
    mixing[torch.arange(len(rows)), torch.tensor(own, dtype=torch.int64)] = masses
    totals = mixing.sum(0)
    weights = totals / totals.sum()
    # The mean over a column's tokens, times the root of the column's weight.
    mixing = mixing / totals * weights.sqrt()
    dtype = torch.promote_types(tokens.coefficients.dtype, torch.float32)
    values = tokens.coefficients.to(dtype).T @ mixing.to(dtype)  # (width, tokens) @ (tokens, n)
    return Columns(values, weights, mixing, tuple(subjects[column] for column in range(len(numbers))))
