"""Negative preference optimisation (NPO)."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from kvw.methods.gradient.losses import descent, negative_preference
from kvw.methods.gradient.settings import NpoSettings
from kvw.training.answers import answers
from kvw.training.objective import Objective, Rows, Term
from kvw.training.trainee import Trainee


def npo(trainee: Trainee, settings: NpoSettings) -> Objective:
    """Minimise (2 / beta) E log(1 + (p / p_ref)^beta) + c L_r.

    The likelihoods are those of whole answers, the reference is the model before unlearning. Where the model is the
    reference, the gradient is that of GA times the mean length of the answers in tokens.

    Source: Zhang et al., arXiv 2404.05868.
    """
    references = trainee.reference_log_likelihoods(trainee.forget)

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        found = answers(model, rows.batch)
        ratios = found.log_likelihoods - references[list(rows.indices)]
        if settings.likelihood == "batch mean":
            return negative_preference(ratios.sum() / len(found.targets), settings.beta) * len(rows.indices)
        return negative_preference(ratios, settings.beta).sum()

    return Objective(forget=Term(forget, "example"), retain=descent(settings.retain_weight))
