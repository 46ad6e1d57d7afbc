"""Negative preference optimisation (NPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Positive, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee

Likelihood = Literal["sequence sum", "batch mean"]


@dataclass(frozen=True)
class NpoSettings(Settings):
    """Negative preference optimisation: forget answers become less likely than they were.

    Args:
        beta: Inverse temperature; 0.1 in the paper, 0.4 to 1.2 with batch means among peers.
        retain_weight: Weight of L_r; 0 is the paper's plain NPO, 1 its NPO + retain.
        likelihood: ``sequence sum``: log p of each whole answer, mean over examples. ``batch mean``: one ratio of
            the token means of a batch, as MLLMU-Bench, OFFSIDE and the KVW authors' script have it; the result then
            depends on the batch size.
    """

    beta: Positive = 0.1
    retain_weight: NotNegative = 1.0
    likelihood: Likelihood = "sequence sum"


def npo(trainee: Trainee, settings: NpoSettings) -> Objective:
    """Minimise (2 / beta) E log(1 + (p / p_ref)^beta) + c L_r.

    The likelihoods are those of whole answers, the reference is the model before unlearning. Where the model is the
    reference, the gradient is that of GA times the mean length of the answers in tokens.

    Source: Zhang et al., arXiv 2404.05868.
    """
    from kvw.training.answers import answers
    from kvw.training.losses import descent, negative_preference
    from kvw.training.objective import Objective, Term

    references = trainee.reference_log_likelihoods(trainee.forget)

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        scored = answers(model, rows.batch)
        ratios = scored.log_likelihoods - references[list(rows.indices)]
        if settings.likelihood == "batch mean":
            return negative_preference(ratios.sum() / len(scored.targets), settings.beta) * len(rows.indices)
        return negative_preference(ratios, settings.beta).sum()

    return Objective(forget=Term(forget, "example"), retain=descent(settings.retain_weight))


METHOD = GradientMethod("npo", NpoSettings, npo)
