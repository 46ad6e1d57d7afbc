"""Direct preference optimisation, with alternative answers (DPO) or refusals (IdkDPO) preferred."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from kvw.data.batches import Prepared
from kvw.methods.gradient.losses import descent
from kvw.methods.gradient.refusals import with_answers, with_refusals
from kvw.methods.gradient.settings import DpoSettings, IdkDpoSettings
from kvw.training.answers import answers
from kvw.training.objective import Objective, Rows, Term
from kvw.training.trainee import Trainee


def dpo(trainee: Trainee, settings: DpoSettings) -> Objective:
    """Minimise -(1 / beta) E log sigmoid(beta (r_preferred - r_forget)) + c L_r, with r = log p - log p_ref.

    Likelihoods are those of whole answers; the reference is the model before unlearning. Source: Rafailov et al.,
    arXiv 2305.18290; the factor 1 / beta as in Zhang et al., arXiv 2404.05868, where it is a baseline of unlearning.
    """
    preferred = with_answers(trainee.forget, trainee.processor, settings.alternatives, trainee.model.config)
    return _preferring(trainee, preferred, settings.beta, settings.retain_weight)


def idk_dpo(trainee: Trainee, settings: IdkDpoSettings) -> Objective:
    """:func:`dpo` with refusals preferred (TOFU, arXiv 2401.06121)."""
    preferred = with_refusals(
        trainee.forget, trainee.processor, settings.refusals, trainee.settings.seed, trainee.model.config
    )
    return _preferring(trainee, preferred, settings.beta, settings.retain_weight)


def _preferring(trainee: Trainee, preferred: Sequence[Prepared], beta: float, retain_weight: float) -> Objective:
    forget_references = trainee.reference_log_likelihoods(trainee.forget)
    preferred_references = trainee.reference_log_likelihoods(preferred)

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        indices = list(rows.indices)
        others = trainee.rows(preferred, indices)
        lost = answers(model, rows.batch).log_likelihoods - forget_references[indices]
        won = answers(model, others.batch).log_likelihoods - preferred_references[indices]
        return -(1 / beta) * logsigmoid(beta * (won - lost)).sum()

    return Objective(forget=Term(forget, "example"), retain=descent(retain_weight))
