"""Losses that several methods share, each a sum over the rows of one set."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid
from transformers import PreTrainedModel

from kvw.training.answers import answers
from kvw.training.objective import Rows, Term
from kvw.training.trainee import Reference


def likelihood_loss(model: PreTrainedModel, rows: Rows) -> Tensor:
    """-sum over answer tokens of log p(token): the sum whose token mean is L_f or L_r."""
    return answers(model, rows.batch).losses.sum()


def ascent_loss(model: PreTrainedModel, rows: Rows) -> Tensor:
    """Sum over answer tokens of log p(token): gradient descent on it is ascent on the likelihood loss."""
    return -likelihood_loss(model, rows)


def descent(weight: float) -> Term:
    """weight * L, the mean negative log-likelihood per answer token."""
    return Term(likelihood_loss, "token", weight)


def negative_preference(log_ratios: Tensor, beta: float) -> Tensor:
    """-(2 / beta) log sigmoid(-beta r) for log-ratios r = log p - log p_ref of examples: (n,) to (n,).

    Its derivative by r is 2 sigmoid(beta r): 1 where the model is the reference, towards 0 as p falls.
    """
    return -(2 / beta) * logsigmoid(-beta * log_ratios)


def divergence_loss(model: PreTrainedModel, rows: Rows, reference: Reference) -> Tensor:
    """Sum over answer-predicting positions of KL(reference || model) over the vocabulary, nats."""
    with reference.model() as original:
        wanted = torch.log_softmax(answers(original, rows.batch).logits, dim=-1)
    scores = torch.log_softmax(answers(model, rows.batch).logits, dim=-1)
    return kl_div(scores, wanted, reduction="sum", log_target=True)
