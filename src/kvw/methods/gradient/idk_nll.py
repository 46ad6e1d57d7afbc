"""Learning to refuse (IdkNLL, also called PO or IDK)."""

from __future__ import annotations

from kvw.methods.gradient.losses import descent
from kvw.methods.gradient.refusals import with_refusals
from kvw.methods.gradient.settings import IdkNllSettings
from kvw.training.objective import Objective
from kvw.training.trainee import Trainee


def idk_nll(trainee: Trainee, settings: IdkNllSettings) -> Objective:
    """Minimise the mean negative log-likelihood per token of refusals to the forget questions, + c L_r.

    Source: TOFU, arXiv 2401.06121 (there called preference optimisation).
    """
    refusing = with_refusals(
        trainee.forget, trainee.processor, settings.refusals, trainee.settings.seed, trainee.model.config
    )
    return Objective(forget=descent(1.0), retain=descent(settings.retain_weight), examples=refusing)
