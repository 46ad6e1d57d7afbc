"""The gradient methods by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.methods.gradient.dpo import dpo, idk_dpo
from kvw.methods.gradient.ga import ga
from kvw.methods.gradient.grad_diff import grad_diff
from kvw.methods.gradient.idk_nll import idk_nll
from kvw.methods.gradient.kl import kl
from kvw.methods.gradient.manu import manu
from kvw.methods.gradient.mmunlearner import mmunlearner
from kvw.methods.gradient.npo import npo
from kvw.methods.gradient.rmu import rmu, rmu_layers
from kvw.methods.gradient.settings import SETTINGS
from kvw.methods.gradient.simnpo import simnpo
from kvw.methods.gradient.task_vector import task_vector
from kvw.methods.gradient.undial import undial
from kvw.training.objective import Objective
from kvw.training.result import Result
from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class Method:
    """A method that :func:`kvw.methods.gradient.unlearn` runs.

    Args:
        settings: Class of its settings.
        build: Makes its objective from a model in training and settings; None for a method without training.
        direct: For a method without training: (model, processor, forget, retain, settings, progress) to a result.
        layers: Which decoder layers it trains, from a model and settings; None for what the training settings say.
    """

    settings: type[Any]
    build: Callable[[Trainee, Any], Objective] | None = None
    direct: Callable[..., Result] | None = None
    layers: Callable[[PreTrainedModel, Any], tuple[int, int]] | None = None

    def objective(self, trainee: Trainee, settings: Any) -> Objective:
        """Make the objective of a method that trains.

        Raises:
            ValueError: The method does not train.
        """
        if self.build is None:
            raise ValueError("this method does not train")
        return self.build(trainee, settings)


METHODS: dict[str, Method] = {
    "dpo": Method(SETTINGS["dpo"], dpo),
    "ga": Method(SETTINGS["ga"], ga),
    "grad-diff": Method(SETTINGS["grad-diff"], grad_diff),
    "idk-dpo": Method(SETTINGS["idk-dpo"], idk_dpo),
    "idk-nll": Method(SETTINGS["idk-nll"], idk_nll),
    "kl": Method(SETTINGS["kl"], kl),
    "manu": Method(SETTINGS["manu"], direct=manu),
    "mmunlearner": Method(SETTINGS["mmunlearner"], mmunlearner),
    "npo": Method(SETTINGS["npo"], npo),
    "rmu": Method(SETTINGS["rmu"], rmu, layers=rmu_layers),
    "simnpo": Method(SETTINGS["simnpo"], simnpo),
    "task-vector": Method(SETTINGS["task-vector"], task_vector),
    "undial": Method(SETTINGS["undial"], undial),
}


def find_method(name: str) -> Method:
    """A method by name.

    Raises:
        UserError: There is none of this name; the message names the most similar one.
    """
    if name not in METHODS:
        similar = difflib.get_close_matches(name.lower().replace("_", "-"), METHODS, n=1)
        hint = f"did you mean '{similar[0]}'? " if similar else ""
        raise UserError(
            f"There is no gradient method '{name}'.", do=f"{hint}The methods are: {', '.join(sorted(METHODS))}"
        )
    return METHODS[name]
