"""Steering: erasure directions, and linear gates that are blind to what must stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvw.methods.method import LoadedModel, Method, Unlearned
from kvw.methods.steering.settings import SteeringSettings
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example
    from kvw.models.value_matrix import ValueMatrix


class Steering(Method[SteeringSettings]):
    """From the forget set's answers towards refusals; what the gates are worth is said in warnings."""

    name = "steering"
    settings = SteeringSettings
    acts_by = "hooks"
    dose = ("strength",)
    firmness = "excerpts of the paper and the authors' code"

    def idle(self, recorded: Mapping[str, Any]) -> set[str]:
        """The ratio where the energy decides, and what moves pixels if none is moved."""
        without = {"ratio"} if recorded.get("energy") is not None else set()
        drawn = recorded.get("pairs") == "forget" or bool(recorded.get("random_start") and recorded.get("epsilon"))
        without |= set() if drawn else {"seed"}
        return without | ({"step", "steps", "random_start", "target"} if recorded.get("epsilon") == 0 else set())

    def value_matrices(self, model: PreTrainedModel, settings: SteeringSettings) -> list[ValueMatrix]:
        """Steering changes no value matrix. Those of its layers say where it acts."""
        from kvw.models.finding import find_value_matrices, in_layers

        return in_layers(find_value_matrices(model), settings.layers)

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: SteeringSettings) -> None:
        """Whether there is a preset for the family; and of ``pairs=forget`` see
        :func:`kvw.methods.gradient.refusals.check_refusals`."""
        from kvw.methods.gradient.refusals import REFUSALS, check_refusals

        settings.for_model(loaded.model.config.model_type)
        if settings.pairs == "forget":
            check_refusals(forget, loaded.processor, REFUSALS, loaded.model.config)

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: SteeringSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :func:`kvw.methods.steering.method.steering`."""
        from kvw.methods.steering.method import steering

        warnings: list[str] = []
        edit = steering(
            loaded.model,
            forget,
            retain,
            settings,
            processor=loaded.processor,
            on_warning=warnings.append,
            progress=progress,
        )
        return Unlearned(edit, warnings=tuple(warnings))


METHOD = Steering()
