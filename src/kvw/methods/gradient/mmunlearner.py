"""Ascent on the weights that matter more to the forget set (MMUnlearner)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Positive, Settings

if TYPE_CHECKING:
    from kvw.training.objective import Objective
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class MmUnlearnerSettings(Settings):
    """MMUnlearner: ascent on the weights that matter more to the forget set.

    Args:
        threshold: A weight is trained if its Fisher information on the forget set is at least this many times that on
            the retain set; 1 in the paper.
        retain_weight: Weight of L_r.
        retain_masked: Off: a masked ascent update and then an update on the retain set that the mask does not hold,
            as the authors' and the KVW authors' code do. Weights outside the mask change then.
    """

    threshold: Positive = 1.0
    retain_weight: NotNegative = 1.0
    retain_masked: bool = True


def mmunlearner(trainee: Trainee, settings: MmUnlearnerSettings) -> Objective:
    """Minimise -L_f + c L_r, changing only the weights where F_f / F_r >= threshold.

    F is the diagonal of the empirical Fisher information on the original model: the mean over examples of the squared
    gradient of an example's mean negative log-likelihood. A weight of no consequence for the forget set (F_f = 0) is
    left alone. Everything outside the mask stays bit for bit what it was, whatever AdamW decays or remembers.

    Under LoRA the weights are those of the adapters. Since B starts at zero, A has no gradient yet and stays as drawn;
    the mask chooses entries of B.

    Source: Huo et al., arXiv 2502.11051; learning rate 1e-5, batch 4, 1 epoch, gradient clipped to 1.

    Raises:
        UserError: A set is empty, or no weight is chosen.
    """
    from kvw.methods.gradient.fisher import fisher_information
    from kvw.training.losses import ascent_loss, descent
    from kvw.training.objective import Objective, Pass, Term

    forget, retain = (fisher_information(trainee, prepared) for prepared in (trainee.forget, trainee.retain))
    masks = {name: (forget[name] > 0) & (forget[name] >= settings.threshold * retain[name]) for name in forget}
    if not any(bool(mask.any()) for mask in masks.values()):
        raise UserError("MMUnlearner's mask chooses no weight.", do="lower the threshold, or train other parts")
    separate = (Pass(("forget",)), Pass(("retain",), masked=False))
    return Objective(
        forget=Term(ascent_loss),
        retain=descent(settings.retain_weight),
        masks=masks,
        passes=(Pass(("forget", "retain")),) if settings.retain_masked else separate,
    )


METHOD = GradientMethod("mmunlearner", MmUnlearnerSettings, mmunlearner)
