"""Pruning the neurons that matter more to the forget set (MANU); no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kvw.errors import UserError
from kvw.methods.gradient.method import OneUpdate
from kvw.settings import Count, Settings, ShareAboveZero
from kvw.training.settings import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data.rendering import Processor
    from kvw.progress import Progress
    from kvw.training.objective import Sets
    from kvw.training.result import Result

Formula = Literal["paper", "code", "pooled"]
AUTHORS_WEIGHTS = (2.0, 0.0, 2.0, 2.0)
AUTHORS_LAST_LAYERS = 3


@dataclass(frozen=True)
class ManuSettings(Settings):
    """MANU: the neurons that matter more to the forget set are pruned; no training.

    Args:
        formula: ``code``: as the authors' code has it, each measure a ratio of forget to retain, decoder neurons on
            questions without their pictures, neurons of the tower on pictures. ``paper``: each measure of a set sets
            its examples with pictures against the same ones without; pictures are needed. ``pooled``: of neither, what
            other versions of kvw called MANU: measures are added first, and everything is seen as it is.
        share: Share of all neurons looked at that is pruned; peers use 0.02, 0.05 and 0.10.
        weights: Of the four measures of importance: absolute, frequency, spread, root mean square. None for what the
            formula says: 2, 0, 2, 2 in the code, and 1 each else.
        parts: ``language`` and ``vision``.
        last_layers: How many of the last layers of each part are looked at. None for what the formula says: 3 in the
            code, and all else.
        batch_size: Examples per forward.
    """

    formula: Formula = "code"
    share: ShareAboveZero = 0.02
    weights: tuple[float, float, float, float] | None = None
    parts: tuple[Part, ...] = ("language", "vision")
    last_layers: Count | None = None
    batch_size: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.chosen_weights
        if len(weights) != 4 or min(weights) < 0 or not any(weights):
            raise UserError(
                "weights must be four numbers of at least 0, and not all 0.",
                found=repr(self.weights),
                do="give 1,1,1,1 for instance",
            )
        if not self.parts:
            raise UserError("parts must name what to prune.", do="use language, vision or both")
        if "projector" in self.parts:
            raise UserError("projector is no part to prune.", do="use language, vision or both")

    @property
    def chosen_weights(self) -> tuple[float, float, float, float]:
        """Those that were given, or the formula's."""
        if self.weights is not None:
            return self.weights
        return AUTHORS_WEIGHTS if self.formula == "code" else (1.0, 1.0, 1.0, 1.0)

    @property
    def chosen_last_layers(self) -> int | None:
        """How many of the last layers are looked at; None for all."""
        return AUTHORS_LAST_LAYERS if self.last_layers is None and self.formula == "code" else self.last_layers


class Manu(OneUpdate):
    """Prunes in place of training."""

    name = "manu"
    own = ManuSettings
    firmness = "its formula in three sources, and the authors' code; each is a setting"
    stage = "measuring and pruning"

    def update(
        self, model: PreTrainedModel, processor: Processor, sets: Sets, own: Any, progress: Progress | None
    ) -> Result:
        """See :func:`kvw.methods.gradient.pruning.manu`."""
        from kvw.methods.gradient.pruning import manu

        return manu(model, processor, sets["forget"], sets["retain"], own, progress)


METHOD = Manu()
