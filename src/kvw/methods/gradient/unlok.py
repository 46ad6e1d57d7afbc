"""What the defences of UnLOK-VQA share: the layer that they train, and rephrased questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvw.methods.gradient.rmu import at_depth
from kvw.settings import Index, NotNegative, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Prepared
    from kvw.training.trainee import Trainee

REPHRASINGS = (
    "Could you tell me: {}",
    "I need an answer to this. {}",
    "{} A short answer is enough.",
    "Somebody wants to know: {}",
)
"""Other words around a question; not those of ``kvw audit``, so that its attack is not trained on."""


@dataclass(frozen=True)
class DefenceSettings(Settings):
    """What all of them can be told.

    Args:
        layer: The decoder layer that is trained, 0-based; None for layer 7 of 32 and at the same depth elsewhere. The
            authors train adapters on its down projection only; here those of all its linear maps are trained.
        rephrased: Also train on every forget question in four other wordings (the authors' input rephrasing).
        retain_weight: Weight of what the objective keeps.
    """

    layer: Index | None = None
    rephrased: bool = False
    retain_weight: NotNegative = 0.0


def trained_layer(model: PreTrainedModel, settings: DefenceSettings) -> tuple[int, int]:
    """The one decoder layer that is trained, as first and last.

    Raises:
        UserError: The model has no such layer.
    """
    layer = at_depth(model, settings.layer)
    return layer, layer


def asked(trainee: Trainee, settings: DefenceSettings) -> Sequence[Prepared]:
    """The forget set, with its rephrased questions if they are wanted.

    Raises:
        UserError: A rephrased question does not fit, see :func:`kvw.data.prepare`.
    """
    from kvw.data import prepare

    if not settings.rephrased:
        return trainee.forget
    others = [
        replace(one.example, question=template.format(one.example.question))
        for one in trainee.forget
        for template in REPHRASINGS
    ]
    return [*trainee.forget, *prepare(others, trainee.processor, trainee.model.config)]
