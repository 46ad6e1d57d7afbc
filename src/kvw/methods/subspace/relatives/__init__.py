"""Relatives of subspace weakening, each with a formula of its own; see docs/methods/subspace.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvw.methods.method import LoadedModel, Method, Unlearned
from kvw.methods.subspace.relatives.settings import (
    DeepUnlearningSettings,
    ForgetComponentsSettings,
    LeaceSettings,
    MemitZeroSettings,
    OutputSideSettings,
    RelativeSettings,
    RmsKvwSettings,
)
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example
    from kvw.models.value_matrix import ValueMatrix


class Relative(Method[RelativeSettings]):
    """A relative; which one, the class of its settings says.

    Args:
        settings: That class.
    """

    scales = "share"
    stage = "measuring and solving"

    def __init__(self, settings: type[RelativeSettings]) -> None:
        self.name, self.settings = settings.name, settings

    def value_matrices(self, model: PreTrainedModel, settings: RelativeSettings) -> list[ValueMatrix]:
        """Those of the layers, of FFNs or attention."""
        from kvw.methods.subspace.method import matrices_in

        return matrices_in(model, settings)

    def most_rank(self, settings: RelativeSettings) -> int:
        """As the settings say."""
        return settings.most_rank

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: RelativeSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :func:`kvw.methods.subspace.examples.relative_edit`."""
        from kvw.methods.subspace.examples import relative_edit

        return relative_edit(loaded, forget, retain, settings, progress)


MEMIT_ZERO = Relative(MemitZeroSettings)
LEACE = Relative(LeaceSettings)
DEEP_UNLEARNING = Relative(DeepUnlearningSettings)
FORGET_COMPONENTS = Relative(ForgetComponentsSettings)
OUTPUT_SIDE = Relative(OutputSideSettings)
RMS_KVW = Relative(RmsKvwSettings)
