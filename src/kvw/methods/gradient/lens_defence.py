"""Defences of UnLOK-VQA against readers of the states between the layers: head projection, and maximum entropy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.unlok import DefenceSettings, asked, trained_layer
from kvw.settings import Count, NotNegative

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class LensMarginSettings(DefenceSettings):
    """Head-projection defence: no layer has a forget answer among its likeliest or unlikeliest tokens.

    Args:
        k: How many of each are looked at.
        margin: How much further than that a probability must be.
        defended: How many of the last distributions are defended; None for 10 where there are 32 layers (the authors'
            code), and the same share elsewhere.
        differences: Defend the differences of the probabilities from layer to layer in place of the probabilities.
        retain_weight: Weight of the divergence from the model before, on the retain set. The authors have it on prompts
            like "<subject> is a", with .0625 for text models and 1 for LLaVA.
    """

    k: Count = 4
    margin: NotNegative = 0.0
    defended: Count | None = None
    differences: bool = False
    retain_weight: NotNegative = 1.0


@dataclass(frozen=True)
class LensEntropySettings(DefenceSettings):
    """Maximum entropy: every layer's guess at a forget answer becomes as even as it can.

    Args:
        defended: How many of the last distributions are defended; None for 10 where there are 32 layers, and the same
            share elsewhere.
        retain_weight: Weight of the divergence from the model before, on the retain set.
    """

    defended: Count | None = None
    retain_weight: NotNegative = 1.0


def lens_margin(trainee: Trainee, settings: LensMarginSettings) -> Objective:
    """Minimise :func:`margin_loss` at every token of the forget answers, + w KL(before || after) on the retain set.

    Source: Patil et al., arXiv 2309.17410 and 2505.01456. Their code defends the first token of an answer; here it is
    every token, because an answer in a sentence says little in its first.
    """

    def loss(probabilities: Tensor, targets: Tensor) -> Tensor:
        return margin_loss(probabilities, targets, settings.k, settings.margin, differences=settings.differences)

    return _defending(trainee, settings, settings.defended, loss, further=int(settings.differences))


def lens_entropy(trainee: Trainee, settings: LensEntropySettings) -> Objective:
    """Minimise :func:`entropy_loss` at every token of the forget answers, + w KL(before || after) on the retain set.

    Source: Patil et al., arXiv 2309.17410 and 2505.01456. Their weight decay is a setting of training here.
    """
    return _defending(trainee, settings, settings.defended, lambda probabilities, _: entropy_loss(probabilities))


def margin_loss(
    probabilities: Tensor, targets: Tensor, k: int, margin: float = 0.0, *, differences: bool = False
) -> Tensor:
    """mean over layers of max(0, p_y - p_(k) + margin) + max(0, p_(-k) - p_y + margin), summed over tokens.

    p_(k) is the k-th largest value of the other tokens and p_(-k) their k-th smallest. So with margin 0 the loss is 0
    exactly if neither the k largest nor the k smallest of a layer hold y for sure (a tie counts as outside).

    Args:
        probabilities: (layers, tokens, vocabulary).
        targets: y, the answer's token: (tokens,), int64.
        k: How many are looked at; at most the vocabulary less 1.
        margin: How much further out y must be.
        differences: Take the differences from layer to layer first: (layers - 1, tokens, vocabulary).
    """
    import torch

    values = probabilities.diff(dim=0) if differences else probabilities
    index = targets.view(1, -1, 1).expand(len(values), -1, 1)
    own = values.gather(-1, index)[..., 0]  # (layers, tokens)
    # y itself is out of the way at either end, so that the k-th of the others is found.
    largest = values.scatter(-1, index, -torch.inf).topk(k).values[..., -1]
    smallest = values.scatter(-1, index, torch.inf).topk(k, largest=False).values[..., -1]
    above = (own - largest + margin).clamp(min=0)
    below = (smallest - own + margin).clamp(min=0)
    return (above + below).mean(0).sum()


def entropy_loss(probabilities: Tensor) -> Tensor:
    """-(mean over layers of the entropy), summed over tokens, nats; -log V per token at a uniform distribution.

    Args:
        probabilities: (layers, tokens, vocabulary).
    """
    import torch

    # Many probabilities of a large vocabulary are 0 in float32, where the gradient of p log p is not finite.
    least = torch.finfo(probabilities.dtype).tiny
    return torch.xlogy(probabilities, probabilities.clamp(min=least)).sum(-1).mean(0).sum()


def _defending(
    trainee: Trainee,
    settings: DefenceSettings,
    defended: int | None,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    further: int = 0,
) -> Objective:
    """An objective over the last distributions of the logit lens, and some further ones before them."""
    import torch

    from kvw.measuring.positions import predicting_positions
    from kvw.measuring.tail import Tail
    from kvw.models.layer_inputs import decoder_layers
    from kvw.training.losses import divergence_loss
    from kvw.training.objective import Objective, Term

    there = len(decoder_layers(trainee.model)) + 1
    distributions = further + (max(1, round(10 / 32 * (there - 1))) if defended is None else defended)
    if distributions > there:
        raise UserError(
            "The model has too few layers to defend.",
            found=f"{there} distributions, {distributions} needed",
            do="defend fewer layers (layers), or take --method fact-erasure",
        )
    tail = Tail(trainee.model, do="take --method fact-erasure")
    reference = trainee.reference() if settings.retain_weight else None

    def forget(_: PreTrainedModel, rows: Rows) -> Tensor:
        flat, width = predicting_positions(rows.batch), rows.batch["labels"].shape[1]
        row, column = flat // width, flat % width  # (tokens,)
        targets = rows.batch["labels"][row, column + 1]
        states = tail.states(rows.batch, row, column)[-distributions:]  # (layers, tokens, hidden)
        logits = tail.logits(states.flatten(0, 1)).view(*states.shape[:2], -1)
        return loss(torch.softmax(logits, dim=-1), targets.to(logits.device))

    def retain(model: PreTrainedModel, rows: Rows) -> Tensor:
        if reference is None:
            raise ValueError("a retain loss of weight 0 is not run")
        return divergence_loss(model, rows, reference)

    examples = asked(trainee, settings)
    return Objective(forget=Term(forget), retain=Term(retain, "token", settings.retain_weight), examples=examples)


METHOD = GradientMethod("lens-margin", LensMarginSettings, lens_margin, trained_layer)
ENTROPY = GradientMethod("lens-entropy", LensEntropySettings, lens_entropy, trained_layer)
