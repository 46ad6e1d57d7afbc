"""Simple negative preference optimisation (SimNPO)."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from kvw.methods.gradient.losses import descent, negative_preference
from kvw.methods.gradient.settings import SimNpoSettings
from kvw.training.answers import answers
from kvw.training.objective import Objective, Rows, Term
from kvw.training.trainee import Trainee


def simnpo(trainee: Trainee, settings: SimNpoSettings) -> Objective:
    """Minimise E -(2 / beta) log sigmoid(-(beta / n) log p - gamma) + c L_r for answers of n tokens; no reference.

    Source: Fan et al., arXiv 2410.07163.
    """

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        found = answers(model, rows.batch)
        # The margin is inside the sigmoid, where the reference of NPO would be.
        means = found.log_likelihoods / found.lengths + settings.gamma / settings.beta
        return negative_preference(means, settings.beta).sum()

    return Objective(forget=Term(forget, "example"), retain=descent(settings.retain_weight))
