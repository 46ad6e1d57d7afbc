"""A refusal in place of what is taken out: one more rank for each value matrix; see docs/methods/subspace.md.

Where the outputs of forget positions should not vanish but become rho, the minimum of
E_r |dW m|^2 + mu (E_first |(W + dW) m - rho|^2 + E_others |(W + dW) m|^2) is
dW = mu (rho m_1^T - W C_f) (S + mu C_f)^-1, where m_1 is what positions that predict a first answer token add to
E_f[m]. With rho = W r only patterns change: u_k becomes u_k - r c_k / lambda_k with c = V^T m_1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data import prepare
from kvw.errors import UserError
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_tokens
from kvw.measuring.moments import Tokens
from kvw.methods.gradient.refusals import REFUSALS
from kvw.methods.steering.neutral import neutral_pairs
from kvw.methods.subspace.solver import Modes
from kvw.methods.subspace.vectors import Columns
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current


def refused_coefficients(
    model: PreTrainedModel, processor: Any, matrices: Sequence[ValueMatrix]
) -> dict[MatrixKey, Tensor]:
    """r: the mean coefficients where a refusal begins, on the neutral questions that the model is told not to know.

    Args:
        model: The model.
        processor: Its processor.
        matrices: What is to be weakened.

    Returns:
        (width,), float64, on the CPU, for every value matrix that saw such a question.

    Raises:
        UserError: There is no processor, several processes work together, or a question cannot be rendered.
    """
    if processor is None:
        raise UserError("A refusal is measured on questions of kvw's own.", do="give the model's processor")
    if current().size > 1:
        raise UserError(
            "A refusal in place of an answer is measured in one process.",
            found=f"{current().size} processes",
            do="run it without torchrun, or leave instead=refusal out",
        )
    _, refused = neutral_pairs(model.config)
    asked = [replace(one, answer=REFUSALS[place % len(REFUSALS)]) for place, one in enumerate(refused)]
    batches = LabelledBatches(prepare(asked, processor, model.config), processor, model)
    tokens = measure_tokens(model, batches, matrices)
    firsts = {key: one.coefficients[one.offsets == 0] for key, one in tokens.items()}
    return {key: rows.double().mean(0) for key, rows in firsts.items() if len(rows)}


def first_token_mean(columns: Columns, tokens: Tokens) -> Tensor:
    """m_1: what the columns that predict a first answer token add to E_f[m]: (width,), in the dtype of the columns.

    Args:
        columns: From :func:`~kvw.methods.subspace.vectors.view_means` of ``tokens``.
        tokens: Coefficients of the forget set.
    """
    first = columns.mixing.T @ (tokens.offsets == 0).double() > 0
    shares = columns.weights.sqrt() * first
    mean: Tensor = columns.values @ shares.to(columns.values)
    return mean


def replacing(modes: Modes, mean: Tensor, instead: Tensor) -> Modes:
    """The modes with patterns that put W r in the place of what is taken out at first answer tokens.

    Args:
        modes: Directions, with V^T U = I.
        mean: m_1: (width,).
        instead: r: (width,).
    """
    filters = modes.filters.double()
    amounts = filters.T @ mean.to(filters) / modes.eigenvalues
    patterns = modes.patterns.double() - torch.outer(instead.to(filters), amounts)
    return Modes(modes.eigenvalues, patterns.to(modes.patterns), modes.filters)
