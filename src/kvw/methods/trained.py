"""What a method that trains is: its result is other weights, not an edit of value matrices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvw.methods.method import LoadedModel, Method, Settings, Stages, Unlearned
from kvw.progress import Progress, unheard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example
    from kvw.training.result import Result


class Trained(Method[Settings]):
    """A method that trains. A new one states ``name`` and ``settings`` and writes :meth:`train`."""

    scales = "share"
    stage = "training"

    @abstractmethod
    def train(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: Settings,
        *,
        state: Path | None = None,
        progress: Progress,
    ) -> Result:
        """Train the model in place.

        Args:
            loaded: The model.
            forget: What must go.
            retain: What must stay.
            settings: The settings.
            state: Where to save how far training has come, and to go on from; None saves nothing.
            progress: Called with the steps done and their total.

        Returns:
            What changed.

        Raises:
            UserError: The method cannot use what it was given, or a loss is not finite.
        """

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: Settings,
        progress: Progress,
    ) -> Unlearned:
        """Train, take the weights that changed, and give the model back those it had, bit for bit."""
        from kvw.edits.edit import EditMetadata
        from kvw.edits.weights import WeightsEdit
        from kvw.training.keeping import weights_kept

        with weights_kept(loaded.model):
            result = self.train(loaded, forget, retain, settings, progress=progress)
            weights = {name: value.detach().to("cpu", copy=True) for name, value in result.weights.items()}
        warnings = [f"Training was stopped early: {result.stopped}."] if result.stopped else []
        if result.kept_zeros:
            zeros = f"The model is pruned: {result.kept_zeros:,} weights that are zero were kept zero"
            warnings.append(f"{zeros} (setting keep_zeros).")
        return Unlearned(WeightsEdit(weights, metadata=EditMetadata(method=self.name)), warnings=tuple(warnings))

    def edit_bytes(self, model: PreTrainedModel, settings: Settings) -> int:
        """The bytes that the model takes: all of it may be trained."""
        from kvw.models.saving import parameter_bytes

        return parameter_bytes(model)

    def changes_weights_meanwhile(self, settings: Settings) -> bool:
        """Training changes them."""
        return True

    def preferring(self, settings: Settings, answers: Sequence[str]) -> Settings:
        """The settings with these answers preferred to those of the forget set, if they ask for any and have none.

        Args:
            settings: The settings.
            answers: One for each forget example; empty if there are none.
        """
        return settings

    def measure_cost(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: Settings,
        stage: Stages,
    ) -> None:
        """Train once; the model stays as it is then."""
        with stage(self.stage):
            self.train(loaded, forget, retain, settings, progress=unheard)
