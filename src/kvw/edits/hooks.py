"""Edits in force by hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Attachment
from kvw.errors import UserError
from kvw.models.coefficients import Handle
from kvw.models.value_matrix import MatrixKey, ValueMatrix


class Hooks(Attachment):
    """An attachment that consists of hooks alone."""

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._handles = handles

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


class NoWeights:
    """What edits that act by hooks alone say where weights are to be changed; put before :class:`Edit`."""

    acts: ClassVar[str]
    """What the edit does, as the beginning of a sentence."""

    def value_matrices(self, model: PreTrainedModel) -> dict[MatrixKey, ValueMatrix]:
        """There are none.

        Raises:
            UserError: Always: whoever asks wants to change weights.
        """
        raise self._no_weights()

    def changed(self, matrix: ValueMatrix, weight: Tensor) -> Tensor:
        """There is no weight that does what the edit does.

        Raises:
            UserError: Always.
        """
        raise self._no_weights()

    def _no_weights(self) -> UserError:
        return UserError(
            f"{self.acts} while the model runs: there are no weights that it could be folded into.",
            do="attach it (edit.attach(model), kvw evaluate --edit, kvw chat --edit), or make an edit with "
            "--method kvw or subspace",
        )
