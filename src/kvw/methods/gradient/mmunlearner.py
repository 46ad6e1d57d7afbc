"""Ascent on the weights that matter more to the forget set (MMUnlearner)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvw.data.batches import Prepared
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.methods.gradient.losses import ascent_loss, descent, likelihood_loss
from kvw.methods.gradient.settings import MmUnlearnerSettings
from kvw.training.objective import Objective, Pass, Term
from kvw.training.trainee import Trainee


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


def fisher_information(trainee: Trainee, prepared: Sequence[Prepared]) -> dict[str, Tensor]:
    """Mean over examples of the squared gradient of the mean negative log-likelihood per answer token.

    Args:
        trainee: The model; in evaluation mode meanwhile.
        prepared: The examples; one backward pass each.

    Returns:
        For each trained parameter a tensor of its shape, at least float32.

    Raises:
        UserError: There is no example.
    """
    if not prepared:
        raise UserError("Fisher information needs examples of both sets.", do="give a forget set and a retain set")
    parameters = trainee.parameters
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with evaluating(trainee.model), torch.enable_grad():
        for index, item in enumerate(prepared):
            with trainee.autocast():
                loss = likelihood_loss(trainee.model, trainee.rows(prepared, [index])) / len(item.answer_ids)
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    sums[name] += gradient.square() / len(prepared)
    return sums
