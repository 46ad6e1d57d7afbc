"""Fisher information: which weights matter to a set of examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvw.data.batches import Prepared
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.training.losses import likelihood_loss
from kvw.training.trainee import Trainee


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
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.square() / len(prepared)
    return sums
