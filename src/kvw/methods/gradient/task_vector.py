"""Negating a task vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import Positive, Settings

if TYPE_CHECKING:
    from torch import nn

    from kvw.training.objective import Objective
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class TaskVectorSettings(Settings):
    """Task-vector negation: learn the forget set, and step the other way.

    Args:
        scale: a; chosen on a validation set in the paper.
    """

    scale: Positive = 1.0


def task_vector(trainee: Trainee, settings: TaskVectorSettings) -> Objective:
    """Minimise L_f to get W_f from W, and end with W - a (W_f - W).

    Under LoRA the task vector is the product of the adapters, so B is multiplied by -a. Source: Ilharco et al.,
    arXiv 2212.04089.
    """
    from kvw.training.losses import descent
    from kvw.training.objective import Objective

    under_lora = trainee.adapter is not None
    originals = {} if under_lora else {name: weight.detach().clone() for name, weight in trainee.parameters.items()}

    def finish(parameters: Mapping[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            if not under_lora:
                parameter.copy_(originals[name] - settings.scale * (parameter - originals[name]))
            elif ".lora_B." in name:
                parameter.mul_(-settings.scale)

    return Objective(forget=descent(1.0), retain=None, finish=finish)


METHOD = GradientMethod("task-vector", TaskVectorSettings, task_vector)
