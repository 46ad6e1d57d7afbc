"""CATNIP, renamed CALIBURN: forget tokens become less likely, the more so the surer the model is of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Positive, Settings, ShareAboveZero

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.answers import Answers
    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class CatnipSettings(Settings):
    """CATNIP (CALIBURN): forget tokens become less likely, the more so the surer the model is of them.

    Rebuilt from its abstract and reviews: the paper's equation and numbers were not read.

    Args:
        beta: Inverse temperature.
        reference: ``reverse``: 1 - p of the model itself, as it is at each step. ``before``: p of the model before
            unlearning, which is NPO token by token (the paper's ablation).
        detach: Whether no gradient goes through the reference 1 - p. Without it the gradient has no bound.
        average: ``token``: over the tokens of an answer, then over answers, so that long ones do not count more.
            ``batch``: over all tokens. ``answer``: p is that of a whole answer (the paper's other ablation).
        floor: The least that 1 - p may be.
        retain_weight: Weight of L_r; 0 in the paper.
    """

    beta: Positive = 1.0
    reference: Literal["reverse", "before"] = "reverse"
    detach: bool = True
    average: Literal["token", "answer", "batch"] = "token"
    floor: ShareAboveZero = 1e-6
    retain_weight: NotNegative = 0.0


def log_reverse(log_p: Tensor, floor: float) -> Tensor:
    """log max(1 - p, floor), without cancellation where p is near 0; the floor stands where p is rounded to 1."""
    return (-log_p.expm1()).clamp_min(floor).log()


def catnip(trainee: Trainee, settings: CatnipSettings) -> Objective:
    """Minimise -(2 / beta) mean log sigmoid(-beta (log p - log q)) + c L_r over tokens of the forget answers.

    The reference is q = max(1 - p, floor). Its gradient by log p is 2 sigmoid(beta logit p): 2 p with beta = 1.

    Source: arXiv 2602.02824, from its abstract and the reviews of ICLR 2026; the equation is a reconstruction.
    """
    import torch

    from kvw.training.answers import answers
    from kvw.training.losses import descent, negative_preference
    from kvw.training.objective import Objective, Term

    before = trainee.reference() if settings.reference == "before" else None

    def probabilities(model: PreTrainedModel, rows: Rows) -> tuple[Answers, Tensor]:
        """The answers, and log p: of whole answers (rows,), or of tokens (tokens,)."""
        scored = answers(model, rows.batch)
        return scored, scored.log_likelihoods if settings.average == "answer" else -scored.losses

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        log_q = None
        if before is not None:
            with before.model() as original, torch.no_grad():
                _, log_q = probabilities(original, rows)
        scored, log_p = probabilities(model, rows)
        if log_q is None:
            log_q = log_reverse(log_p.detach() if settings.detach else log_p, settings.floor)
        losses = negative_preference(log_p - log_q, settings.beta)
        return (scored.per_row(losses) / scored.lengths).sum() if settings.average == "token" else losses.sum()

    return Objective(
        forget=Term(forget, "token" if settings.average == "batch" else "example"),
        retain=descent(settings.retain_weight),
    )


class Catnip(GradientMethod):
    """States how firmly it is known."""

    firmness = "the abstract and reviews of the paper; its equation was not read"


METHOD = Catnip("catnip", CatnipSettings, catnip)
