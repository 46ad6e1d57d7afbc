"""Gradient ascent (GA)."""

from __future__ import annotations

from kvw.methods.gradient.losses import ascent_loss
from kvw.methods.gradient.settings import GaSettings
from kvw.training.objective import Objective, Term
from kvw.training.trainee import Trainee


def ga(trainee: Trainee, settings: GaSettings) -> Objective:
    """Minimise -L_f, where L_f is the mean negative log-likelihood per answer token of the forget set.

    Source: Jang et al., arXiv 2210.01504; Maini et al. (TOFU), arXiv 2401.06121. Peers use learning rates of 1e-5 to
    3e-5 and one epoch.
    """
    return Objective(forget=Term(ascent_loss), retain=None)
