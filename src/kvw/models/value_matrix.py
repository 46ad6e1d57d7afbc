"""One value matrix in a live model, and how statistics and edits name it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset, has_offloaded_params
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kvw.models.quantised import packed_shape, refuse_quantised
from kvw.models.sharding import as_split, whole_weight


class MatrixKey(NamedTuple):
    """Names one value matrix of the language decoder.

    Statistics and edits are stored under these keys and not under module names, because libraries rename modules.
    """

    layer: int
    """0-based decoder layer."""
    expert: int | None = None
    """0-based expert of a mixture of experts; None for a dense FFN and for attention."""
    attention: bool = False
    """Whether it is the output projection of the layer's attention."""

    def __str__(self) -> str:
        if self.attention:
            return f"layer.{self.layer}.attention"
        return f"layer.{self.layer}" if self.expert is None else f"layer.{self.layer}.expert.{self.expert}"

    @classmethod
    def parse(cls, text: str) -> MatrixKey:
        """Read what ``str`` wrote; a field name may follow it.

        Raises:
            ValueError: ``text`` does not start with a key.
        """
        match = re.match(r"layer\.(\d+)(?:\.expert\.(\d+)|\.(attention))?(?:\.|$)", text)
        if match is None:
            raise ValueError(f"not the key of a value matrix: {text!r}")
        return cls(int(match[1]), int(match[2]) if match[2] else None, bool(match[3]))

    @property
    def order(self) -> tuple[int, int]:
        """Sorts by layer: attention, what every token sees beside the experts, the experts."""
        return self.layer, -2 if self.attention else -1 if self.expert is None else self.expert


@dataclass(frozen=True)
class ValueMatrix:
    """One value matrix V in a live model.

    Knowledge vector ``v_i`` is what coefficient i is multiplied by: column i of the weight of a ``Linear``, which has
    shape (hidden, width), or row i of that of a ``Conv1D`` (GPT-2), which has shape (width, hidden). Of attention, the
    coefficients are what its heads have gathered from other tokens, one head after the other.
    """

    key: MatrixKey
    name: str
    """Dotted name of the module in the model."""
    module: nn.Module
    """A ``Linear`` or ``Conv1D``."""

    @property
    def width(self) -> int:
        """Number of knowledge vectors: width of the FFN, or heads times their width."""
        shape = linear_shape(self.module)
        return shape[0] if shape else 0

    @property
    def hidden(self) -> int:
        """Length of a knowledge vector."""
        shape = linear_shape(self.module)
        return shape[1] if shape else 0

    @property
    def parameter(self) -> str:
        """Dotted name of the parameter that holds the matrix."""
        return f"{self.name}.weight"

    @property
    def vectors_first(self) -> bool:
        """Whether the matrix has shape (width, hidden) instead of (hidden, width)."""
        return isinstance(self.module, Conv1D)

    def along_vectors(self, gates: Tensor) -> Tensor:
        """Shape gates (width,) so that a product with the weight scales knowledge vectors."""
        return gates[:, None] if self.vectors_first else gates

    def read(self) -> Tensor:
        """The weight, also where accelerate keeps it in memory or on disk between forwards, or where it is split over
        processes (which must then all call this); not to be changed.

        Raises:
            UserError: It is quantised.
        """
        refuse_quantised(self.name, self.module)
        if has_offloaded_params(self.module):
            return read_parameter(self.module, "weight")
        return whole_weight(self.module)

    def write(self, weight: Tensor) -> None:
        """Put another weight of the same shape and dtype in its place, so that forwards use it from now on.

        Raises:
            UserError: It is quantised.
        """
        refuse_quantised(self.name, self.module)
        write_parameter(self.module, "weight", as_split(weight, self.module))


@dataclass(frozen=True)
class Parameter:
    """One whole parameter of a live model, for what changes more than value matrices."""

    name: str
    """Dotted name of the module that holds it."""
    module: nn.Module
    own: str
    """Its name in that module."""

    @classmethod
    def of(cls, model: nn.Module, parameter: str) -> Parameter:
        """The parameter of a dotted name.

        Raises:
            AttributeError: The model has none of this name.
        """
        module, _, own = parameter.rpartition(".")
        model.get_parameter(parameter)
        return cls(module, model.get_submodule(module), own)

    @property
    def parameter(self) -> str:
        """Its dotted name."""
        return f"{self.name}.{self.own}" if self.name else self.own

    @property
    def key(self) -> str:
        """What stands for it among what an edit changes."""
        return self.parameter

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its tensor."""
        return tuple(self.module.get_parameter(self.own).shape)

    def read(self) -> Tensor:
        """Its values wherever they are now; not to be changed."""
        return read_parameter(self.module, self.own)

    def write(self, values: Tensor) -> None:
        """Put others in their place, of the same shape and dtype."""
        write_parameter(self.module, self.own, values)


def in_order(tensors: Mapping[MatrixKey, Tensor]) -> list[tuple[MatrixKey, Tensor]]:
    """The entries layer by layer, experts in order."""
    return sorted(tensors.items(), key=lambda entry: entry[0].order)


def read_parameter(module: nn.Module, name: str) -> Tensor:
    """A parameter's values wherever they are now; not to be changed."""
    if has_offloaded_params(module):
        weights, key = _offload_store(module, name)
        stored: Tensor = weights[key]
        return stored
    return module.get_parameter(name).detach()


def write_parameter(module: nn.Module, name: str, values: Tensor) -> None:
    """Give a parameter other values, of the same shape and dtype, so that forwards use them from now on."""
    if has_offloaded_params(module):
        # The module itself holds nothing between forwards: what is written there is silently lost.
        weights, key = _offload_store(module, name)
        if isinstance(weights, OffloadedWeightsLoader):
            weights = weights.state_dict  # takes precedence over the loader's files
        weights[key] = values.to("cpu")
        return
    with torch.no_grad():
        module.get_parameter(name).copy_(values)


def _offload_store(module: nn.Module, name: str) -> tuple[Any, str]:
    """Where accelerate's hook takes a parameter of the module from, and under which key."""
    hook: Any = module._hf_hook
    weights, key = hook.weights_map, name
    while isinstance(weights, PrefixedDataset):
        weights, key = weights.dataset, weights.prefix + key
    return weights, key


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear map, quantised or not; None if the module is none."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return packed_shape(module)
