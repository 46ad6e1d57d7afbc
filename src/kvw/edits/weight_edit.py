"""Edits that can be written into the weights of a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Edit
from kvw.errors import UserError
from kvw.models.detection import confirm_value_matrices
from kvw.models.finding import find_value_matrices
from kvw.models.quantised import refuse_quantised
from kvw.models.value_matrix import MatrixKey, Parameter, ValueMatrix


class WeightEdit(Edit):
    """An edit of weights; those of most kinds change the value matrices that :attr:`widths` lists."""

    @abstractmethod
    def changed(self, matrix: Any, weight: Tensor) -> Tensor:
        """The weight of one of the :meth:`parts` with the edit in it.

        Args:
            matrix: Which one; only its key and orientation are used.
            weight: Its weight, in any floating dtype, as it is now; not changed.

        Returns:
            The new weight, of the same shape and dtype.

        Raises:
            UserError: See :meth:`check_foldable`.
        """

    @property
    def undoes(self) -> bool:
        """Whether it is an inverse."""
        return False

    def check_foldable(self, matrix: Any, dtype: torch.dtype) -> None:
        """Refuse weights that this edit cannot be written into.

        Raises:
            UserError: They are quantised; or the edit is an inverse and they are too coarse to come back.
        """
        if not dtype.is_floating_point:
            raise UserError(
                f"{matrix.name} holds quantised weights, which an edit cannot be folded into.",
                found=str(dtype),
                do="attach the edit instead, or fold it into the full-precision checkpoint with: kvw apply",
            )
        if self.undoes and torch.finfo(dtype).eps > torch.finfo(torch.float32).eps:
            raise UserError(
                f"The inverse of an edit cannot be folded into {dtype} weights: their rounding is not undone.",
                found=f"{matrix.name} is {dtype}",
                do="restore the original checkpoint; an edit that is attached is undone by detaching it",
            )

    def fold(self, model: PreTrainedModel) -> None:
        """Write the edit into the weights of a live model, once, from the values they have now.

        Raises:
            UserError: The edit is for another model, or its weights cannot take it. No weight was changed.
        """
        matrices = self.parts(model)
        for matrix in matrices:
            refuse_quantised(matrix.name, matrix.module)
            self.check_foldable(matrix, matrix.read().dtype)
        for matrix in matrices:
            matrix.write(self.changed(matrix, matrix.read()))

    def value_matrices(self, model: PreTrainedModel) -> dict[MatrixKey, ValueMatrix]:
        """The live value matrices that this edit is for.

        Raises:
            UserError: The model lacks one of them or it has another width: the edit is for another model.
        """
        if self.metadata.value_matrices:
            confirm_value_matrices(model, self.metadata.value_matrices)
        live = {matrix.key: matrix for matrix in find_value_matrices(model, "both")}
        wrong = [
            f"{key}: {width} in the edit, {live[key].width if key in live else 'missing'} in the model"
            for key, width in self.widths.items()
            if key not in live or live[key].width != width
        ]
        if wrong:
            raise self.misfit(model, wrong)
        return {key: live[key] for key in self.widths}

    def parts(self, model: PreTrainedModel) -> Sequence[ValueMatrix | Parameter]:
        """What of a live model this edit changes when it is folded in.

        Raises:
            UserError: The edit is for another model, or has no weights.
        """
        return list(self.value_matrices(model).values())

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that this edit is not for.

        Raises:
            UserError: It lacks something that the edit acts on, or that has another width.
        """
        self.value_matrices(model)


def weight_edit(edit: Edit) -> WeightEdit:
    """An edit, known to change weights.

    Raises:
        UserError: It acts only by hooks.
    """
    if not isinstance(edit, WeightEdit):
        raise edit.no_weights()
    return edit
