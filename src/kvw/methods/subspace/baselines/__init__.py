"""Baselines of subspace weakening, each with a formula of its own; see docs/methods/subspace.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvw.methods.method import LoadedModel, Method, Unlearned
from kvw.methods.subspace.baselines.settings import (
    BaselineSettings,
    DeepUnlearningSettings,
    ForgetComponentsSettings,
    LeaceSettings,
    MemitZeroSettings,
    OutputSideSettings,
    RmsKvwSettings,
    VlEraserSettings,
)
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example
    from kvw.models.value_matrix import ValueMatrix


class Baseline(Method[BaselineSettings]):
    """A baseline; which one, the class of its settings says.

    Args:
        settings: That class.
    """

    scales = "share"
    stage = "measuring and solving"

    def __init__(self, settings: type[BaselineSettings]) -> None:
        self.name, self.settings, self.firmness = settings.name, settings, settings.firmness

    def value_matrices(self, model: PreTrainedModel, settings: BaselineSettings) -> list[ValueMatrix]:
        """The value matrices of the layers, of FFNs or attention."""
        from kvw.methods.subspace.method import matrices_in

        return matrices_in(model, settings)

    def most_rank(self, settings: BaselineSettings) -> int:
        """The most directions that the settings allow."""
        return settings.most_rank

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: BaselineSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :func:`kvw.methods.subspace.examples.baseline_edit`."""
        from kvw.methods.subspace.examples import baseline_edit

        return baseline_edit(loaded, forget, retain, settings, progress)


MEMIT_ZERO = Baseline(MemitZeroSettings)
LEACE = Baseline(LeaceSettings)
DEEP_UNLEARNING = Baseline(DeepUnlearningSettings)
FORGET_COMPONENTS = Baseline(ForgetComponentsSettings)
OUTPUT_SIDE = Baseline(OutputSideSettings)
RMS_KVW = Baseline(RmsKvwSettings)
VL_ERASER = Baseline(VlEraserSettings)
