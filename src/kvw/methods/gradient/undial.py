"""Self-distillation with adjusted logits (UNDIAL)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from transformers import PreTrainedModel

from kvw.methods.gradient.losses import descent
from kvw.methods.gradient.settings import UndialSettings
from kvw.training.answers import answers
from kvw.training.objective import Objective, Rows, Term
from kvw.training.trainee import Trainee


def undial(trainee: Trainee, settings: UndialSettings) -> Objective:
    """Minimise the cross-entropy to softmax(z_ref - s onehot(y)), the mean over answer tokens y of the forget set.

    z_ref are the logits of the model before unlearning; in full fine-tuning it is kept as a frozen copy. Source: Dong
    et al., arXiv 2402.10052; strength 10 is open-unlearning's default.
    """
    reference = trainee.reference()

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        with reference.model() as original:
            teacher = answers(original, rows.batch)
            true = one_hot(teacher.targets, teacher.logits.shape[-1])
            wanted = (teacher.logits - settings.strength * true).softmax(dim=-1)
        return cross_entropy(answers(model, rows.batch).logits, wanted, reduction="sum")

    return Objective(forget=Term(forget), retain=descent(settings.retain_weight))
