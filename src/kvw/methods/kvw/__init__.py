"""Knowledge Vector Weakening, the method; see docs/methods/kvw.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.method import RETAIN_PASS, LoadedModel, Method, Scaling, Stages, Unlearned
from kvw.progress import Progress, unheard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example, Prepared
    from kvw.measuring.sources import Positions
    from kvw.measuring.statistics import Statistics
    from kvw.methods.plan import MethodPlan
    from kvw.models.value_matrix import ValueMatrix

FORGET_PASS = "forget pass"


class Kvw(Method[KvwSettings]):
    """Statistics of the retain set, and for one-shot of the forget set too, are kept between settings."""

    name = "kvw"
    title = "KVW"
    settings = KvwSettings
    dose = ("gamma", "epochs", "update_every", "parity")
    options = tuple(field.name for field in fields(KvwSettings))
    stronger = "a larger --gamma, more --layers, or --schedule one-shot"
    instead_of_retain = "--no-retain-contrast for the ablation"

    def scaling(self, settings: KvwSettings) -> Scaling | None:
        """A parity run offers a single edit, because its steps are rounded one by one."""
        return None if settings.parity else "strength"

    def idle(self, recorded: Mapping[str, Any]) -> set[str]:
        """One shot shuffles nothing."""
        return {"seed"} if recorded.get("schedule") == "one-shot" else set()

    def needs_retain(self, settings: KvwSettings) -> bool:
        """All but the ablation do."""
        return settings.retain_contrast

    def statistics_positions(self, settings: KvwSettings) -> Positions | None:
        """KVW reads nothing of the retain set but C_r."""
        return settings.positions if settings.retain_contrast else None

    def changes_weights_meanwhile(self, settings: KvwSettings) -> bool:
        """Parity rounds the weights themselves."""
        return settings.parity

    def value_matrices(self, model: PreTrainedModel, settings: KvwSettings) -> list[ValueMatrix]:
        """The value matrices of the FFNs of the layers."""
        from kvw.models.finding import find_value_matrices, select_layers

        return select_layers(find_value_matrices(model), settings.layers)

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: KvwSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :class:`~kvw.methods.method.Method`."""
        return self._weakened(loaded, forget, self._reference(loaded, retain, settings, progress), settings, progress)

    def make_from_statistics(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Statistics,
        settings: KvwSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :class:`~kvw.methods.method.Method`."""
        return self._weakened(loaded, forget, retain, settings, progress)

    def plan(
        self, loaded: LoadedModel, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: KvwSettings
    ) -> MethodPlan:
        """See :func:`kvw.methods.kvw.plan.kvw_plan`."""
        from kvw.methods.kvw.plan import kvw_plan

        return kvw_plan(loaded, forget, retain, settings)

    def measure_cost(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: KvwSettings,
        stage: Stages,
    ) -> None:
        """A pass over each set."""
        with stage(RETAIN_PASS):
            reference = self._reference(loaded, retain, settings, unheard)
        with stage(FORGET_PASS):
            self._weakened(loaded, forget, reference, settings, unheard)

    def _reference(
        self, loaded: LoadedModel, retain: Sequence[Example], settings: KvwSettings, progress: Progress
    ) -> Statistics | None:
        if not settings.retain_contrast:
            return None
        return loaded.measure(retain, settings.positions, progress).statistics

    def _weakened(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        reference: Statistics | None,
        settings: KvwSettings,
        progress: Progress,
    ) -> Unlearned:
        from kvw.methods.kvw.weaken import one_shot, weaken

        if settings.schedule == "progressive":
            return Unlearned(weaken(loaded.model, loaded.batches(forget), reference, settings, progress=progress))
        matrices = self.value_matrices(loaded.model, settings)
        measured = loaded.measure(forget, settings.positions, progress).statistics
        return Unlearned(
            one_shot(
                measured.within((matrices[0].key.layer, matrices[-1].key.layer)),
                reference,
                gamma=settings.gamma,
                steps=settings.steps(len(forget)),
                min_tokens=settings.min_tokens,
            )
        )


METHOD = Kvw()
