"""Pruning the neurons that matter more to the forget set (MANU); no training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.settings import Count, Settings, ShareAboveZero
from kvw.training.settings import Part, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data.rendering import Processor
    from kvw.progress import Progress
    from kvw.training.objective import Sets
    from kvw.training.result import Result


@dataclass(frozen=True)
class ManuSettings(Settings):
    """MANU: the neurons that matter more to the forget set are pruned; no training.

    Args:
        share: Share of all neurons looked at that is pruned; peers use 0.02, 0.05 and 0.10.
        weights: Of the four measures of importance: absolute, frequency, variance, root mean square. The paper adds
            them; the authors' code weighs them 2, 0, 2, 2.
        parts: ``language`` and ``vision``.
        last_layers: How many of the last layers of each part are looked at (the authors' code: 3); None for all.
        batch_size: Examples per forward.
    """

    share: ShareAboveZero = 0.02
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    parts: tuple[Part, ...] = ("language", "vision")
    last_layers: Count | None = None
    batch_size: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.weights) != 4 or min(self.weights) < 0 or not any(self.weights):
            raise UserError("weights must be four numbers of at least 0, and not all 0.", found=repr(self.weights))
        if not self.parts:
            raise UserError("parts must name what to prune.", do="use language, vision or both")
        if "projector" in self.parts:
            raise UserError("projector is no part to prune.", do="use language, vision or both")


class Manu(GradientMethod):
    """Prunes in place of training."""

    name = "manu"
    own = ManuSettings
    trains = False
    stage = "measuring and pruning"

    def __init__(self) -> None:
        """MANU has no objective."""

    def run(
        self,
        model: PreTrainedModel,
        processor: Processor,
        sets: Sets,
        own: Any,
        training: TrainingSettings | None = None,
        *,
        reference: PreTrainedModel | None = None,
        state: Path | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """See :func:`kvw.methods.gradient.pruning.manu`."""
        from kvw.methods.gradient.pruning import manu

        return manu(model, processor, sets["forget"], sets["retain"], own, progress)


METHOD = Manu()
