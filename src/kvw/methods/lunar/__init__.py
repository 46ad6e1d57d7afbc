"""LUNAR: forget questions are sent where refused questions are, by one ridge solve; see docs/methods/lunar.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvw.methods.lunar.settings import LunarSettings
from kvw.methods.method import LoadedModel, Method, Unlearned
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example
    from kvw.models.value_matrix import ValueMatrix


class Lunar(Method[LunarSettings]):
    """One direction in one value matrix."""

    name = "lunar"
    settings = LunarSettings
    scales = "share"
    dose = ("distance",)
    firmness = "the abstract and the authors' code, whose training is solved here in closed form"
    stronger = "a larger --set distance or mu, or another --set layer"
    stage = "measuring and solving"

    def value_matrices(self, model: PreTrainedModel, settings: LunarSettings) -> list[ValueMatrix]:
        """That of the one layer."""
        from kvw.methods.lunar.method import matrix_of

        return [matrix_of(model, settings)]

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: LunarSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :func:`kvw.methods.lunar.method.lunar`."""
        from kvw.methods.lunar.method import lunar

        return lunar(loaded, forget, retain, settings, progress)


METHOD = Lunar()
