"""Gradient difference (GradDiff)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Settings

if TYPE_CHECKING:
    from kvw.training.objective import Objective
    from kvw.training.trainee import Trainee

Passes = Literal["joint", "sequential"]


@dataclass(frozen=True)
class GradDiffSettings(Settings):
    """Gradient difference: ascent on the forget answers, descent on the retain answers.

    Args:
        retain_weight: c; peers search 0.5, 1 and 2.
        passes: ``joint`` updates once on the sum; ``sequential`` makes an ascent update and then a descent update, as
            MLLMU-Bench's scripts do.
    """

    retain_weight: NotNegative = 1.0
    passes: Passes = "joint"


def grad_diff(trainee: Trainee, settings: GradDiffSettings) -> Objective:
    """Minimise -L_f + c L_r (Liu et al., arXiv 2203.12817; TOFU, arXiv 2401.06121)."""
    from kvw.training.losses import ascent_loss, descent
    from kvw.training.objective import Objective, Pass, Term

    sequential = (Pass(("forget",)), Pass(("retain",)))
    passes = sequential if settings.passes == "sequential" else (Pass(("forget", "retain")),)
    return Objective(forget=Term(ascent_loss), retain=descent(settings.retain_weight), passes=passes)


METHOD = GradientMethod("grad-diff", GradDiffSettings, grad_diff)
