"""Where value matrices lie in a checkpoint's files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from kvw.errors import UserError
from kvw.models.value_matrix import MatrixKey, Parameter, ValueMatrix
from kvw.models.weight_files import weight_files

KNOWN_CONVERSIONS = {"Transpose", "MergeModulelist", "ErnieFuseAndSplitTextVisionExperts"}
"""What may happen to a value matrix between file and memory. (Ernie's files list its text experts first.)"""


@dataclass(frozen=True)
class StoredMatrix:
    """Where a value matrix, or a whole parameter, lies in a checkpoint's files, and how."""

    matrix: Any
    """A :class:`~kvw.models.value_matrix.ValueMatrix` or :class:`~kvw.models.value_matrix.Parameter`."""
    file: str
    name: str
    """Name of the tensor that holds it."""
    slice: int | None = None
    """Index along the first of three axes, where one tensor holds the matrices of all experts; None for a matrix of
    its own."""
    transposed: bool = False
    """Whether rows and columns are exchanged between the file and the live model."""

    def changed(self, stored: Tensor, change: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """What ``change`` makes of the matrix.

        Args:
            stored: The matrix as it lies in the file, two axes.
            change: Gives the new weight for one in the orientation of the live model, in the same dtype.
        """
        if not self.transposed:
            return change(self.matrix, stored)
        return change(self.matrix, stored.T.contiguous()).T.contiguous()

    def read(self, folder: Path) -> Tensor:
        """The matrix in the orientation of the live model."""
        with safe_open(folder / self.file, "pt") as file:
            stored: Tensor = file.get_tensor(self.name) if self.slice is None else file.get_slice(self.name)[self.slice]
        return stored.T if self.transposed else stored


def locate(
    model: PreTrainedModel, matrices: Sequence[ValueMatrix | Parameter], folder: Path
) -> dict[MatrixKey | str, StoredMatrix]:
    """Find value matrices, or whole parameters, in a checkpoint's files.

    Tensors in files may have other names than in memory, and other forms: one tensor for each expert where the live
    model has one for all, or rows and columns exchanged. What belongs to what is asked of transformers' own
    conversion rules, and proven by the shapes.

    Args:
        model: The live model, or its skeleton without weights.
        matrices: Some of its value matrices and parameters.
        folder: The checkpoint.

    Raises:
        UserError: A matrix is not there, or in a form that kvw cannot patch.
    """
    tensors = _Tensors(model, folder)
    return {
        one.key: tensors.find(one) if isinstance(one, ValueMatrix) else tensors.find_parameter(one) for one in matrices
    }


@dataclass(frozen=True)
class _Tensor:
    file: str
    name: str
    shape: tuple[int, ...]
    pattern: str | None
    """The conversion rule that it goes through while loading, if any."""


class _Tensors:
    """The tensors of a checkpoint by the name of the parameter that they make up."""

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        rules = get_model_conversion_mapping(model) or []
        renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = {
            pattern: rule for rule in rules if isinstance(rule, WeightConverter) for pattern in rule.source_patterns
        }
        converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        state, prefix = model.state_dict(), model.base_model_prefix
        self._of: dict[str, list[_Tensor]] = {}
        for path in weight_files(folder):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    live, pattern = rename_source_key(name, renamings, converters, prefix, state)
                    if live not in state and name in state:
                        live, pattern = rename_source_key(name, [], [], prefix, state)
                    tensor = _Tensor(path.name, name, tuple(file.get_slice(name).get_shape()), pattern)
                    self._of.setdefault(live, []).append(tensor)

    def find_parameter(self, parameter: Parameter) -> StoredMatrix:
        sources = self._of.get(parameter.parameter, [])
        if len(sources) != 1 or sources[0].shape != parameter.shape or self._operations(sources[0]):
            found = ", ".join(f"{tensor.name} {list(tensor.shape)} in {tensor.file}" for tensor in sources[:3])
            raise UserError(
                f"The weight {parameter.parameter} is not in the files of the checkpoint as it is in memory.",
                found=found or "no tensor that becomes it",
                do="attach the edit instead of writing it, and report the model's name",
            )
        return StoredMatrix(parameter, sources[0].file, sources[0].name)

    def find(self, matrix: ValueMatrix) -> StoredMatrix:
        shape = (matrix.width, matrix.hidden) if matrix.vectors_first else (matrix.hidden, matrix.width)
        sources = sorted(self._of.get(matrix.parameter, []), key=lambda tensor: dot_natural_key(tensor.name))
        if len({tensor.name for tensor in sources}) < len(sources):
            raise UserError(
                f"The value matrix {matrix.parameter} is in several weight files.",
                found=", ".join(f"{tensor.name} in {tensor.file}" for tensor in sources[:3]),
                do="get a copy that holds it once; in the others it would stay as it is",
            )
        expert = matrix.key.expert
        if len(sources) == 1:
            tensor, place = sources[0], expert
        elif expert is not None and expert < len(sources):
            tensor, place = sources[expert], None
        else:
            raise _not_found(matrix, sources, shape)
        operations = self._operations(tensor)
        turned = any(name == "Transpose" for name, _ in operations)
        if turned and any(checks for name, checks in operations if name == "Transpose"):
            turned = tensor.shape[-2:] != shape  # transformers itself looks at the shape here
        stored = shape[::-1] if turned else shape
        known = {name for name, _ in operations} <= KNOWN_CONVERSIONS
        if not known or tensor.shape[-2:] != stored or len(tensor.shape) != (2 if place is None else 3):
            raise _not_found(matrix, sources, shape)
        return StoredMatrix(matrix, tensor.file, tensor.name, place, turned)

    def _operations(self, tensor: _Tensor) -> list[tuple[str, bool]]:
        """What happens to the tensor while loading, and whether that depends on its shape."""
        if tensor.pattern is None:
            return []
        operations = self._converters[tensor.pattern].operations
        return [(type(operation).__name__, bool(getattr(operation, "check_dims", False))) for operation in operations]


def _not_found(matrix: ValueMatrix, sources: Sequence[_Tensor], shape: tuple[int, ...]) -> UserError:
    found = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in sources[:3])
    return UserError(
        f"The value matrix {matrix.parameter} was not found in the files of the checkpoint.",
        found=found or "no tensor that becomes it",
        do=f"expected shape {list(shape)}; attach the edit instead of writing it, and report the model's name",
    )
