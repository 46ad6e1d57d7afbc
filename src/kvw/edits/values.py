"""The tensors of an edit file, taken one by one and checked: names, dtypes, shapes, and that every number is finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kvw.models.value_matrix import MatrixKey

FLOATS = (torch.float32,)


class Values:
    """Gives each tensor once; :meth:`finish` refuses what nobody has taken.

    Args:
        tensors: Tensors by name, as a file holds them.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._left = dict(tensors)

    def keys(self, ending: str) -> list[MatrixKey]:
        """The value matrices for which there is a tensor ``<key>.<ending>``, in order."""
        parsed = [(name, MatrixKey.parse(name)) for name in self._left if name.endswith(f".{ending}")]
        # 'layer.01' would stand for the same matrix as 'layer.1': it is left, and refused as unknown.
        keys = [key for name, key in parsed if f"{key}.{ending}" == name]
        return sorted(keys, key=lambda key: key.order)

    def take(self, name: str, dimensions: int, dtypes: Sequence[torch.dtype] = FLOATS, *, none: bool = False) -> Tensor:
        """A tensor of finite numbers, at least one.

        Args:
            name: Its name.
            dimensions: How many it has.
            dtypes: Those that it may have.
            none: Whether the last dimension may have length 0.

        Raises:
            ValueError: It is missing, or something else.
        """
        if name not in self._left:
            raise ValueError(f"{name} is missing")
        value = self._left.pop(name)
        if value.dtype not in dtypes:
            raise ValueError(f"{name} is in {value.dtype}, not in {' or '.join(map(str, dtypes))}")
        if value.ndim != dimensions:
            raise ValueError(f"{name} has {value.ndim} dimensions, not {dimensions}")
        if 0 in value.shape[: dimensions - 1 if none else dimensions]:
            raise ValueError(f"{name} is empty")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} is not finite")
        return value

    def row(self, name: str) -> Tensor:
        """Numbers in a row: (n,), float32, n above 0.

        Raises:
            ValueError: See :meth:`take`.
        """
        return self.take(name, 1)

    def number(self, name: str) -> float:
        """A single float64.

        Raises:
            ValueError: See :meth:`take`.
        """
        return float(self.take(name, 0, (torch.float64,)))

    def whole(self, name: str) -> int:
        """A single int64.

        Raises:
            ValueError: See :meth:`take`.
        """
        return int(self.take(name, 0, (torch.int64,)))

    def flag(self, name: str) -> bool:
        """A single bool.

        Raises:
            ValueError: See :meth:`take`.
        """
        return bool(self.take(name, 0, (torch.bool,)))

    def finish(self) -> None:
        """Everything has been taken.

        Raises:
            ValueError: Something is left.
        """
        if self._left:
            raise ValueError(f"no edit of this kind has a tensor {min(self._left)[:60]!r}")
