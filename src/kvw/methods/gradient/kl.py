"""Gradient ascent held back by the original model's answers on the retain set (KL)."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.methods.gradient.losses import ascent_loss, divergence_loss, likelihood_loss
from kvw.methods.gradient.settings import KlSettings
from kvw.training.objective import Objective, Rows, Term
from kvw.training.trainee import Trainee


def kl(trainee: Trainee, settings: KlSettings) -> Objective:
    """Minimise -L_f + w mean KL(p_ref || p) + c L_r; the mean is over answer-predicting positions of the retain set.

    Source: TOFU, arXiv 2401.06121. The reference is the model before unlearning; in full fine-tuning it is kept as a
    frozen copy beside the model.
    """
    reference = trainee.reference() if settings.kl_weight else None

    def retain(model: PreTrainedModel, rows: Rows) -> Tensor:
        parts: list[Tensor] = []
        if reference is not None:
            parts.append(settings.kl_weight * divergence_loss(model, rows, reference))
        if settings.retain_weight:
            parts.append(settings.retain_weight * likelihood_loss(model, rows))
        return torch.stack(parts).sum()

    wanted = bool(settings.kl_weight or settings.retain_weight)
    return Objective(forget=Term(ascent_loss), retain=Term(retain) if wanted else None)
