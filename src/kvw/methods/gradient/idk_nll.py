"""Learning to refuse (IdkNLL, also called PO or IDK)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.refusals import REFUSALS
from kvw.settings import NotNegative, Settings

if TYPE_CHECKING:
    from kvw.training.objective import Objective
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class IdkNllSettings(Settings):
    """Learning to refuse: descent on refusals to the forget questions.

    Args:
        retain_weight: Weight of L_r.
        refusals: What to draw from, once for each forget example.
    """

    retain_weight: NotNegative = 1.0
    refusals: tuple[str, ...] = REFUSALS


def idk_nll(trainee: Trainee, settings: IdkNllSettings) -> Objective:
    """Minimise the mean negative log-likelihood per token of refusals to the forget questions, + c L_r.

    Source: TOFU, arXiv 2401.06121 (there called preference optimisation).
    """
    from kvw.methods.gradient.refusals import with_refusals
    from kvw.training.losses import descent
    from kvw.training.objective import Objective

    refusing = with_refusals(
        trainee.forget, trainee.processor, settings.refusals, trainee.settings.seed, trainee.model.config
    )
    return Objective(forget=descent(1.0), retain=descent(settings.retain_weight), examples=refusing)


METHOD = GradientMethod("idk-nll", IdkNllSettings, idk_nll)
