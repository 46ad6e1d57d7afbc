"""R-MUSE: rotations out of a forget subspace, kept away from what the retain set spans; see docs/methods/r-muse.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvw.methods.method import LoadedModel, Method, Unlearned
from kvw.methods.r_muse.settings import RMuseSettings
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example
    from kvw.models.value_matrix import ValueMatrix


class RMuse(Method[RMuseSettings]):
    """What the gates are worth is said in warnings."""

    name = "r-muse"
    settings = RMuseSettings
    acts_by = "hooks"
    dose = ("angle",)
    firmness = "the abstract and summaries of the paper"
    stronger = "a larger --set angle, a smaller --set spared, or other layers"

    def idle(self, recorded: Mapping[str, Any]) -> set[str]:
        """The share that is spared, if the threshold is given."""
        return {"spared"} if recorded.get("threshold") is not None else set()

    def value_matrices(self, model: PreTrainedModel, settings: RMuseSettings) -> list[ValueMatrix]:
        """R-MUSE changes no value matrix. Those of its layers say where it acts."""
        from kvw.models.finding import find_value_matrices, in_layers

        return in_layers(find_value_matrices(model), settings.layers)

    def edit_bytes(self, model: PreTrainedModel, settings: RMuseSettings) -> int:
        """Two subspaces for each layer."""
        hidden = int(model.config.get_text_config().hidden_size)
        layers = {matrix.key.layer for matrix in self.value_matrices(model, settings)}
        return len(layers) * 4 * hidden * 2 * min(settings.rank, hidden)

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: RMuseSettings) -> None:
        """See :func:`kvw.methods.gradient.refusals.check_refusals`."""
        from kvw.methods.gradient.refusals import REFUSALS, check_refusals

        check_refusals(forget, loaded.processor, REFUSALS, loaded.model.config)

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: RMuseSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :func:`kvw.methods.r_muse.method.r_muse`."""
        from kvw.methods.r_muse.method import r_muse

        return r_muse(loaded, forget, retain, settings, progress)


METHOD = RMuse()
