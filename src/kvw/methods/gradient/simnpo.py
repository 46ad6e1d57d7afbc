"""Simple negative preference optimisation (SimNPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Positive, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class SimNpoSettings(Settings):
    """Simple negative preference optimisation, without a reference model.

    The defaults are those of the authors' published model for TOFU's forget05.

    Args:
        beta: Inverse temperature.
        gamma: Margin.
        retain_weight: Weight of L_r.
    """

    beta: Positive = 2.5
    gamma: NotNegative = 0.0
    retain_weight: NotNegative = 0.1375


def simnpo(trainee: Trainee, settings: SimNpoSettings) -> Objective:
    """Minimise E -(2 / beta) log sigmoid(-(beta / n) log p - gamma) + c L_r for answers of n tokens; no reference.

    Source: Fan et al., arXiv 2410.07163.
    """
    from kvw.training.answers import answers
    from kvw.training.losses import descent, negative_preference
    from kvw.training.objective import Objective, Term

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        scored = answers(model, rows.batch)
        # The margin is inside the sigmoid, where the reference of NPO would be.
        means = scored.log_likelihoods / scored.lengths + settings.gamma / settings.beta
        return negative_preference(means, settings.beta).sum()

    return Objective(forget=Term(forget, "example"), retain=descent(settings.retain_weight))


METHOD = GradientMethod("simnpo", SimNpoSettings, simnpo)
