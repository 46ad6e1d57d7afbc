"""Gradient ascent (GA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.methods.gradient.method import GradientMethod

if TYPE_CHECKING:
    from kvw.training.objective import Objective
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class GaSettings:
    """Gradient ascent on the loss of the forget answers.

    It has no settings of its own. The loss has no lower bound: use ``forget_floor`` or few steps.
    """


def ga(trainee: Trainee, settings: GaSettings) -> Objective:
    """Minimise -L_f, where L_f is the mean negative log-likelihood per answer token of the forget set.

    Source: Jang et al., arXiv 2210.01504; Maini et al. (TOFU), arXiv 2401.06121. Peers use learning rates of 1e-5 to
    3e-5 and one epoch.
    """
    from kvw.training.losses import ascent_loss
    from kvw.training.objective import Objective, Term

    return Objective(forget=Term(ascent_loss), retain=None)


METHOD = GradientMethod("ga", GaSettings, ga)
