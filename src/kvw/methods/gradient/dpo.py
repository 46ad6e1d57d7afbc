"""Direct preference optimisation, with alternative answers (DPO) or refusals (IdkDPO) preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.refusals import REFUSALS
from kvw.methods.gradient.settings import TrainedSettings
from kvw.methods.method import LoadedModel
from kvw.settings import NotNegative, Positive, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.data import Example, Prepared
    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class DpoSettings(Settings):
    """Direct preference optimisation: other answers are preferred to the forget answers.

    Args:
        alternatives: For each forget example, in order, the answer to be preferred.
        beta: Inverse temperature.
        retain_weight: Weight of L_r; 0 in the paper.
    """

    alternatives: tuple[str, ...] = ()
    beta: Positive = 0.1
    retain_weight: NotNegative = 0.0


@dataclass(frozen=True)
class IdkDpoSettings(Settings):
    """Direct preference optimisation with refusals: they are preferred to the forget answers.

    Args:
        refusals: What to draw the preferred answers from, once for each forget example.
        beta: Inverse temperature.
        retain_weight: Weight of L_r; 0 in the paper.
    """

    refusals: tuple[str, ...] = REFUSALS
    beta: Positive = 0.1
    retain_weight: NotNegative = 0.0


def dpo(trainee: Trainee, settings: DpoSettings) -> Objective:
    """Minimise -(1 / beta) E log sigmoid(beta (r_preferred - r_forget)) + c L_r, with r = log p - log p_ref.

    Likelihoods are those of whole answers; the reference is the model before unlearning. Source: Rafailov et al.,
    arXiv 2305.18290; the factor 1 / beta as in Zhang et al., arXiv 2404.05868, where it is a baseline of unlearning.
    """
    from kvw.methods.gradient.refusals import with_answers

    preferred = with_answers(trainee.forget, trainee.processor, settings.alternatives, trainee.model.config)
    return _preferring(trainee, preferred, settings.beta, settings.retain_weight)


def idk_dpo(trainee: Trainee, settings: IdkDpoSettings) -> Objective:
    """:func:`dpo` with refusals preferred (TOFU, arXiv 2401.06121)."""
    from kvw.methods.gradient.refusals import with_refusals

    preferred = with_refusals(
        trainee.forget, trainee.processor, settings.refusals, trainee.settings.seed, trainee.model.config
    )
    return _preferring(trainee, preferred, settings.beta, settings.retain_weight)


def _preferring(trainee: Trainee, preferred: Sequence[Prepared], beta: float, retain_weight: float) -> Objective:
    from torch.nn.functional import logsigmoid

    from kvw.training.answers import answers
    from kvw.training.losses import descent
    from kvw.training.objective import Objective, Term

    forget_references = trainee.reference_log_likelihoods(trainee.forget)
    preferred_references = trainee.reference_log_likelihoods(preferred)

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        indices = list(rows.indices)
        others = trainee.rows(preferred, indices)
        lost = answers(model, rows.batch).log_likelihoods - forget_references[indices]
        won = answers(model, others.batch).log_likelihoods - preferred_references[indices]
        return -(1 / beta) * logsigmoid(beta * (won - lost)).sum()

    return Objective(forget=Term(forget, "example"), retain=descent(retain_weight))


class Dpo(GradientMethod):
    """Learns from the wrong answers of a benchmark."""

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: TrainedSettings) -> None:
        """A forget file has no answers to prefer.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "dpo prefers another answer to each forget answer, and a forget file has none.",
            do="use --method idk-dpo, which prefers refusals, or kvw bench run with a benchmark that has wrong answers",
        )


METHOD = Dpo("dpo", DpoSettings, dpo)
IDK = GradientMethod("idk-dpo", IdkDpoSettings, idk_dpo)
