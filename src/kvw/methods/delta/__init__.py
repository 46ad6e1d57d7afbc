"""Delta-unlearning: a small model learns to say less, and a frozen one is moved by what that changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvw.errors import UserError
from kvw.methods.delta.settings import DeltaSettings
from kvw.methods.gradient.method import WithTraining
from kvw.methods.gradient.settings import TrainedSettings, steps
from kvw.methods.method import LoadedModel, Stages, Unlearned
from kvw.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example, Prepared


class Delta(WithTraining):
    """Its edit acts on logits; nothing of the model itself is changed."""

    name = "delta-unlearning"
    own = DeltaSettings
    scales = "strength"
    dose = ("alpha",)
    acts_by = "hooks"
    firmness = "the abstract and summaries of the paper; the formula and the losses are theirs, the settings ours"
    stronger = "more --set epochs, a higher --set learning_rate, or a larger small model"
    stage = "training"

    def fixes_strength(self, settings: TrainedSettings) -> bool:
        """Whether alpha is given."""
        return bool(settings.method_settings.alpha != DeltaSettings().alpha)

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: TrainedSettings) -> None:
        """The small model must be there, and have the same tokens."""
        from kvw.methods.delta.method import check_vocabulary

        offset = _small_model(settings)
        check_vocabulary(loaded.processor, offset)

    def edit_bytes(self, model: PreTrainedModel, settings: TrainedSettings) -> int:
        """The bytes of the small model: all of it may be trained."""
        from kvw.models.checkpoint import find_checkpoint

        folder = find_checkpoint(_small_model(settings)).folder
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))

    def announce(self, loaded: LoadedModel, forget: Sequence[Prepared], settings: TrainedSettings) -> list[str]:
        """How many steps."""
        if settings.training is None:
            return []
        count = steps(settings.training, len(forget))
        return [
            f"delta-unlearning trains {settings.method_settings.offset} in {count:,} steps, each through a forward of "
            "the model itself, which stays as it is and still knows everything."
        ]

    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: TrainedSettings,
        progress: Progress,
    ) -> Unlearned:
        """See :func:`kvw.methods.delta.method.train_offset`."""
        from kvw.methods.delta.method import train_offset

        self.check(loaded, forget, settings)
        edit, result = train_offset(loaded.model, loaded.processor, forget, retain, settings, progress=progress)
        stopped = (f"Training was stopped early: {result.stopped}.",) if result.stopped else ()
        return Unlearned(edit, warnings=stopped)

    def measure_cost(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: TrainedSettings,
        stage: Stages,
    ) -> None:
        """Where no small model is named, a copy of the model stands for it: the dearest that there is."""
        from copy import deepcopy

        from kvw.methods.delta.method import train_offset

        small = None if settings.method_settings.offset else deepcopy(loaded.model)
        with stage(self.stage):
            train_offset(loaded.model, loaded.processor, forget, retain, settings, small=small)


METHOD = Delta()


def _small_model(settings: TrainedSettings) -> str:
    """The small model that is named.

    Raises:
        UserError: None is.
    """
    offset = str(settings.method_settings.offset)
    if not offset:
        raise UserError(
            "delta-unlearning needs a small model with the same tokenizer.",
            do="name its checkpoint: --set offset=SMALL_MODEL",
        )
    return offset
