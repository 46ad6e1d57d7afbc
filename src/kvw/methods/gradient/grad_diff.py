"""Gradient difference (GradDiff)."""

from __future__ import annotations

from kvw.methods.gradient.losses import ascent_loss, descent
from kvw.methods.gradient.settings import GradDiffSettings
from kvw.training.objective import Objective, Pass, Term
from kvw.training.trainee import Trainee


def grad_diff(trainee: Trainee, settings: GradDiffSettings) -> Objective:
    """Minimise -L_f + c L_r (Liu et al., arXiv 2203.12817; TOFU, arXiv 2401.06121)."""
    sequential = (Pass(("forget",)), Pass(("retain",)))
    passes = sequential if settings.passes == "sequential" else (Pass(("forget", "retain")),)
    return Objective(forget=Term(ascent_loss), retain=descent(settings.retain_weight), passes=passes)
