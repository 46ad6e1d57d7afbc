"""Gradient ascent held back by the original model's answers on the retain set (KL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class KlSettings(Settings):
    """Gradient ascent that is held back by the original model's answers on the retain set.

    Args:
        kl_weight: Weight of the divergence; peers search 0.5, 1 and 2.
        retain_weight: Weight of L_r, which the KVW authors' script adds with weight 1; the published loss has none.
    """

    kl_weight: NotNegative = 1.0
    retain_weight: NotNegative = 0.0


def kl(trainee: Trainee, settings: KlSettings) -> Objective:
    """Minimise -L_f + w mean KL(p_ref || p) + c L_r; the mean is over answer-predicting positions of the retain set.

    Source: TOFU, arXiv 2401.06121. The reference is the model before unlearning; in full fine-tuning it is kept as a
    frozen copy beside the model.
    """
    import torch

    from kvw.training.losses import ascent_loss, divergence_loss, likelihood_loss
    from kvw.training.objective import Objective, Term

    reference = trainee.reference() if settings.kl_weight else None

    # Both are sums over answer tokens; the loop divides by their number.
    def retain(model: PreTrainedModel, rows: Rows) -> Tensor:
        parts: list[Tensor] = []
        if reference is not None:
            parts.append(settings.kl_weight * divergence_loss(model, rows, reference))
        if settings.retain_weight:
            parts.append(settings.retain_weight * likelihood_loss(model, rows))
        return torch.stack(parts).sum()

    wanted = bool(settings.kl_weight or settings.retain_weight)
    return Objective(forget=Term(ascent_loss), retain=Term(retain) if wanted else None)


METHOD = GradientMethod("kl", KlSettings, kl)
