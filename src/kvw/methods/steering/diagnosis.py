"""The distribution of the gate over any sets of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data import Example, prepare
from kvw.data.rendering import Processor
from kvw.edits.steering import SteeringEdit
from kvw.errors import UserError
from kvw.methods.steering.gate import FAIR_AUC, auc, unfair
from kvw.methods.steering.states import read_states, readings
from kvw.progress import Progress


@dataclass(frozen=True)
class Diagnosis:
    """Gates a . h of sets of examples, on the model without steering.

    Args:
        gates: For each set and layer the gate of every example: (samples,), float64.
    """

    gates: Mapping[str, Mapping[int, Tensor]]

    def mean_gates(self, name: str) -> Tensor:
        """The mean over the layers, for every example of a set: (samples,)."""
        return torch.stack(list(self.gates[name].values())).mean(0)

    def auc(self, other: str, *, forget: str = "forget", layer: int | None = None) -> float:
        """How often an example of the forget set has a larger gate than one of another set.

        Args:
            other: Name of the other set.
            forget: Name of the forget set.
            layer: The layer whose gate is looked at; None for the mean over the layers.
        """
        if layer is None:
            return auc(self.mean_gates(forget), self.mean_gates(other))
        return auc(self.gates[forget][layer], self.gates[other][layer])

    def best_layer(self, other: str, *, forget: str = "forget") -> int:
        """The layer whose gate tells the forget set best from another one; the first of equals."""
        return max(self.gates[forget], key=lambda layer: self.auc(other, forget=forget, layer=layer))

    def warnings(self, *, forget: str = "forget") -> list[str]:
        """One for each set that the gates do not tell from the forget set."""
        others = {name: self.auc(name, forget=forget) for name in self.gates if name != forget}
        return [unfair("all layers", name, value) for name, value in others.items() if value < FAIR_AUC]


def diagnose(
    edit: SteeringEdit,
    model: PreTrainedModel,
    processor: Processor,
    sets: Mapping[str, Sequence[Example]],
    *,
    progress: Progress | None = None,
) -> Diagnosis:
    """Measure the gates of sets of examples; best of such that the edit was not made from.

    Args:
        edit: A steering edit; it must not be attached.
        model: Its model.
        processor: Its processor.
        sets: Sets by name; none of them empty. Answers are not looked at.
        progress: Called after every batch of a set.

    Raises:
        UserError: A set is empty, the edit is for another model, or a state is not finite.
    """
    edit.check_model(model)
    gates = {}
    for name, examples in sets.items():
        if not examples:
            raise UserError(f"The set '{name}' is empty, so it has no gates.", do="leave it out, or give examples")
        batches = readings(prepare(examples, processor, model.config), processor)
        states = read_states(model, batches, list(edit.steers), progress=progress)
        gates[name] = {layer: states[layer].double() @ steer.filter.double() for layer, steer in edit.steers.items()}
    return Diagnosis(gates)
