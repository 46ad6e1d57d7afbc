"""Self-distillation with adjusted logits (UNDIAL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Positive, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class UndialSettings(Settings):
    """UNDIAL: the model imitates itself with the forget tokens made less likely.

    Args:
        strength: What is taken off the logit of the true token; peers use 3, 10 and 30.
        retain_weight: Weight of L_r; 0 in the paper.
    """

    strength: Positive = 10.0
    retain_weight: NotNegative = 0.0


def undial(trainee: Trainee, settings: UndialSettings) -> Objective:
    """Minimise the cross-entropy to softmax(z_ref - s onehot(y)), the mean over answer tokens y of the forget set.

    z_ref are the logits of the model before unlearning; in full fine-tuning it is kept as a frozen copy. Source: Dong
    et al., arXiv 2402.10052; strength 10 is open-unlearning's default.
    """
    from torch.nn.functional import cross_entropy, one_hot

    from kvw.training.answers import answers
    from kvw.training.losses import descent
    from kvw.training.objective import Objective, Term

    reference = trainee.reference()

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        with reference.model() as original:
            teacher = answers(original, rows.batch)
            true = one_hot(teacher.targets, teacher.logits.shape[-1])
            wanted = (teacher.logits - settings.strength * true).softmax(dim=-1)
        return cross_entropy(answers(model, rows.batch).logits, wanted, reduction="sum")

    return Objective(forget=Term(forget), retain=descent(settings.retain_weight))


METHOD = GradientMethod("undial", UndialSettings, undial)
