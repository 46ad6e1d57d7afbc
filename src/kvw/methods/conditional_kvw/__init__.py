"""Conditional KVW: gates that act only on prompts about what is to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kvw.methods.conditional_kvw.settings import ConditionalKvwSettings
from kvw.methods.kvw import METHOD as KVW
from kvw.methods.method import LoadedModel, Method, Unlearned
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example
    from kvw.models.value_matrix import ValueMatrix


class ConditionalKvw(Method[ConditionalKvwSettings]):
    """One-shot KVW under a condition; what the condition is worth is said in a warning."""

    name = "conditional-kvw"
    settings = ConditionalKvwSettings
    acts_by = "hooks"
    dose = ("gamma",)

    def idle(self, recorded: Mapping[str, Any]) -> set[str]:
        """The ratio where the energy decides."""
        return {"ratio"} if recorded.get("energy") is not None else set()

    def value_matrices(self, model: PreTrainedModel, settings: ConditionalKvwSettings) -> list[ValueMatrix]:
        """The value matrices of the FFNs of the layers."""
        from kvw.models.finding import find_value_matrices, in_layers

        return in_layers(find_value_matrices(model), settings.layers)

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: ConditionalKvwSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :class:`~kvw.methods.method.Method`."""
        from kvw.edits.conditional import ConditionalGateEdit
        from kvw.edits.edit import EditMetadata
        from kvw.edits.gates import GateEdit
        from kvw.methods.conditional_kvw.condition import find_condition
        from kvw.models.layer_inputs import decoder_layers

        layers = settings.chosen_layers(len(decoder_layers(loaded.model)))
        condition, report = find_condition(loaded.model, loaded.processor, forget, retain, settings, progress=progress)
        gates = KVW.make(loaded, forget, retain, settings.weakening(layers), progress).edit
        metadata = EditMetadata(
            method=self.name,
            settings={**asdict(settings), "layers": layers, "steps": gates.metadata.settings["steps"]},
            left_alone=gates.metadata.left_alone,
        )
        edit = ConditionalGateEdit(GateEdit(gates.log_factors(), metadata), condition)
        return Unlearned(edit, warnings=tuple(report.warnings))


METHOD = ConditionalKvw()
