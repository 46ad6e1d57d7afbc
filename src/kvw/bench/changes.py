"""What a method does to a model: something that is on while the model is asked, and off again."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel

from kvw.edits.algebra import mix, scale
from kvw.edits.edit import Edit
from kvw.edits.weight_edit import WeightEdit
from kvw.training.keeping import trained_weights
from kvw.training.result import ADAPTER, WEIGHTS


class Change(Protocol):
    """What a method returns, whether it acts by hooks (an edit) or by other weights (training)."""

    def on(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Change the model during the block; afterwards it is bit for bit what it was.

        Raises:
            UserError: It was made from another model; nothing was changed.
        """

    def at(self, share: float) -> Change:
        """The same between nothing (0) and all of it (1), both bit for bit: the weights mixed with those of the model.

        What changes no weights is taken at a part of its strength.

        Raises:
            UserError: It has neither weights nor a strength.
        """

    @property
    def digest(self) -> str:
        """SHA-256 that identifies it."""


@dataclass(frozen=True)
class EditChange:
    """An edit; its hooks come off.

    Args:
        edit: Any kind.
    """

    edit: Edit

    def on(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """See :class:`Change`."""
        return self.edit.attach(model)

    def at(self, share: float) -> EditChange:
        """See :class:`Change`."""
        if share == 1:  # gates that are mixed are rounded again
            return self
        return EditChange(mix(self.edit, share) if isinstance(self.edit, WeightEdit) else scale(self.edit, share))

    @property
    def digest(self) -> str:
        """SHA-256 over the edit's kind and numbers."""
        return self.edit.digest()


@dataclass(frozen=True)
class TrainedChange:
    """What training left behind, as :meth:`kvw.training.result.Result.save` writes it; the weights before come back.

    Args:
        folder: An adapter or changed weights, with a record that lists the weights they concern.
        share: How much of it, see :func:`kvw.training.keeping.trained_weights`.
    """

    folder: Path
    share: float = 1.0

    def on(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """See :class:`Change`; takes main memory for the originals of the weights that change."""
        return trained_weights(model, self.folder, self.share)

    def at(self, share: float) -> TrainedChange:
        """See :class:`Change`."""
        return TrainedChange(self.folder, share)

    @property
    def digest(self) -> str:
        """SHA-256 over the file of the tensors."""
        name = WEIGHTS if (self.folder / WEIGHTS).is_file() else ADAPTER
        with (self.folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
