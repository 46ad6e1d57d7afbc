"""Fact erasure, a defence of UnLOK-VQA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.unlok import DefenceSettings, asked, trained_layer
from kvw.settings import ShareBelowOne

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class FactErasureSettings(DefenceSettings):
    """Fact erasure: the probability of forget answers falls, until it is small.

    Args:
        floor: An answer whose probability is below it is left alone; 0.01 in the authors' code.
    """

    floor: ShareBelowOne = 0.01


def fact_erasure(trainee: Trainee, settings: FactErasureSettings) -> Objective:
    """Minimise E p(answer | question, images) over the forget answers with p >= floor, + c L_r.

    p is the likelihood of a whole answer. Source: Patil et al. (UnLOK-VQA), arXiv 2505.01456, and their code.
    """
    from kvw.training.answers import answers
    from kvw.training.losses import descent
    from kvw.training.objective import Objective, Term

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        likelihoods = answers(model, rows.batch).log_likelihoods.exp()  # (rows,)
        return likelihoods.where(likelihoods >= settings.floor, likelihoods.detach()).sum()

    examples = asked(trainee, settings)
    return Objective(forget=Term(forget, "example"), retain=descent(settings.retain_weight), examples=examples)


METHOD = GradientMethod("fact-erasure", FactErasureSettings, fact_erasure, trained_layer)
