"""Subspace weakening: whole directions of coefficients, found with a full second moment of what must stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvw.methods.method import LoadedModel, Method, Scaling, Unlearned
from kvw.methods.subspace.settings import GATE_SETTINGS, READ, SubspaceSettings
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example, Prepared
    from kvw.methods.earlier import Earlier
    from kvw.methods.plan import MethodPlan
    from kvw.models.value_matrix import ValueMatrix


class Subspace(Method[SubspaceSettings]):
    """One solve offers its strongest directions, however many."""

    name = "subspace"
    title = "subspace weakening"
    settings = SubspaceSettings
    dose = ("strength", "mu", "gamma", "threshold", "quantile", "gate", "smallest_gate", "held_out_ratio")
    stronger = "a larger --strength, --set mu=2, or more --layers"
    stage = "measuring and solving"
    takes_earlier = True
    options = ("instead",)

    def scaling(self, settings: SubspaceSettings) -> Scaling | None:
        """Hard gates take directions out altogether, and do not say which of them is stronger."""
        return "share" if settings.gate == "hard" else "directions"

    def to_choose_from(self, settings: SubspaceSettings) -> SubspaceSettings:
        """All directions keep the gates they get: one rounded to 0 does not say how strong its direction is."""
        return replace(settings, smallest_gate=0.0)

    def smallest_gate(self, settings: SubspaceSettings) -> float:
        """The setting ``smallest_gate``."""
        return settings.smallest_gate

    def holds_out(self, settings: SubspaceSettings) -> bool:
        """The method holds views out for the check on views, and to cross-validate the shrinkage."""
        return settings.held_out_ratio > 0 or settings.folds > 1

    def value_matrices(self, model: PreTrainedModel, settings: SubspaceSettings) -> list[ValueMatrix]:
        """The value matrices of the layers, of FFNs or attention."""
        from kvw.methods.subspace.method import matrices_in

        return matrices_in(model, settings)

    def idle(self, recorded: Mapping[str, Any]) -> set[str]:
        """The settings that the gate does not use."""
        read = {name for gate, names in READ.items() if gate == recorded.get("gate") for name in names}
        idle = GATE_SETTINGS - (read or GATE_SETTINGS)
        return idle | ({"quantile"} if recorded.get("threshold") is not None else set())

    def most_rank(self, settings: SubspaceSettings) -> int:
        """The setting ``rank``."""
        return settings.rank

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: SubspaceSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :func:`kvw.methods.subspace.examples.subspace_edit`."""
        from kvw.methods.subspace.examples import subspace_edit

        return subspace_edit(loaded, forget, retain, settings, progress)

    def keep(self, loaded: LoadedModel, forget: Sequence[Example], progress: Progress) -> Earlier:
        """See :func:`kvw.methods.subspace.examples.kept_of`."""
        from kvw.methods.subspace.examples import kept_of

        return kept_of(loaded, forget, progress)

    def plan(
        self, loaded: LoadedModel, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: SubspaceSettings
    ) -> MethodPlan:
        """See :func:`kvw.methods.subspace.plan.subspace_plan`."""
        from kvw.methods.subspace.plan import subspace_plan

        return subspace_plan(loaded, forget, retain, settings)


METHOD = Subspace()
