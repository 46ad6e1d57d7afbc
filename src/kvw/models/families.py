"""Where the value matrices of each model family live: data, proven against the live module by shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.models.candidates import describe_candidates


class MatrixKey(NamedTuple):
    """Names one value matrix of the language decoder.

    Statistics and edits are stored under these keys and not under module names, because libraries rename modules.
    """

    layer: int
    """0-based decoder layer."""
    expert: int | None = None
    """0-based expert of a mixture of experts; None for a dense FFN."""

    def __str__(self) -> str:
        return f"layer.{self.layer}" if self.expert is None else f"layer.{self.layer}.expert.{self.expert}"

    @classmethod
    def parse(cls, text: str) -> MatrixKey:
        """Read what ``str`` wrote; a field name may follow it.

        Raises:
            ValueError: ``text`` does not start with a key.
        """
        found = re.match(r"layer\.(\d+)(?:\.expert\.(\d+))?(?:\.|$)", text)
        if found is None:
            raise ValueError(f"not the key of a value matrix: {text!r}")
        return cls(int(found[1]), int(found[2]) if found[2] else None)


@dataclass(frozen=True)
class ValueMatrix:
    """One value matrix V in a live model.

    Knowledge vector ``v_i`` is column i of ``module.weight``, which has shape (hidden, width).
    """

    key: MatrixKey
    name: str
    """Dotted name of the module in the model."""
    module: nn.Linear

    @property
    def width(self) -> int:
        """Number of knowledge vectors (FFN width)."""
        return self.module.in_features


@dataclass(frozen=True)
class Family:
    """A vision-language model class: where its language decoder is."""

    model_type: str
    """``config.model_type`` of the whole model."""
    decoder: str
    """Dotted path from the model to its text decoder."""


@dataclass(frozen=True)
class Decoder:
    """A text decoder: where its layers are and, in each, the value projection."""

    model_type: str
    """``config.get_text_config().model_type``."""
    layers: str = "layers"
    value_projection: str = "mlp.down_proj"


FAMILIES = (
    Family("llava", decoder="model.language_model"),
    Family("qwen2_vl", decoder="model.language_model"),
    Family("qwen2_5_vl", decoder="model.language_model"),
)
DECODERS = (
    Decoder("llama"),
    Decoder("mistral"),
    Decoder("qwen2"),
    Decoder("qwen2_vl_text"),
    Decoder("qwen2_5_vl_text"),
)


def find_value_matrices(model: PreTrainedModel) -> list[ValueMatrix]:
    """Find the value matrices of the language decoder, layer by layer.

    The family says where they should be; what is there must be a linear map from the FFN width to the hidden width
    that the model's own configuration states, one for every decoder layer.

    Args:
        model: A loaded Hugging Face model.

    Returns:
        One entry for each decoder layer, in order.

    Raises:
        UserError: The family is not known (the message lists what the model holds), a module is missing, or a
            shape is not what the configuration says.
    """
    if hasattr(model, "peft_config"):
        raise UserError(
            "The model carries a PEFT adapter, and an edit would scale its base weights only.",
            do="merge the adapter first: model = model.merge_and_unload()",
        )
    text_config = model.config.get_text_config()
    family = _lookup(FAMILIES, model.config.model_type, "vision-language family", model)
    decoder = _lookup(DECODERS, text_config.model_type, "text decoder", model)
    path = f"{family.decoder}.{decoder.layers}"
    layers = _submodule(model, path)
    expected = int(text_config.num_hidden_layers)
    if not isinstance(layers, nn.ModuleList) or len(layers) != expected:
        raise UserError(
            f"{type(model).__name__}.{path} is not a list of {expected} decoder layers.",
            found=describe_candidates(model),
        )
    matrices = []
    for index in range(expected):
        name = f"{path}.{index}.{decoder.value_projection}"
        module = _value_projection(name, _submodule(model, name), text_config)
        matrices.append(ValueMatrix(MatrixKey(index), name, module))
    return matrices


def select_layers(matrices: Sequence[ValueMatrix], layers: tuple[int, int] | None) -> list[ValueMatrix]:
    """The value matrices of a range of layers.

    Args:
        matrices: Those of the whole decoder.
        layers: First and last layer, 0-based, both included; None for the default of the paper's code, layer 1 to
            L - 3 of L layers (25 of 28 in Qwen2-VL-2B).

    Raises:
        UserError: The range is empty or leaves the decoder.
    """
    last = max(matrix.key.layer for matrix in matrices)
    start, end = default_layers(last + 1) if layers is None else layers
    if not 0 <= start <= end <= last:
        raise UserError(
            f"The layer range {start}:{end} does not fit this model.",
            found=f"layers 0 to {last}",
            do=f"give first and last layer, both included, for example {default_layers(last + 1)[0]}:"
            f"{default_layers(last + 1)[1]}",
        )
    return [matrix for matrix in matrices if start <= matrix.key.layer <= end]


def default_layers(count: int) -> tuple[int, int]:
    """Layers 1 to L - 3, both included, kept within a model of ``count`` layers."""
    end = max(count - 3, 0)
    return min(1, end), end


def _lookup(table: tuple[Any, ...], model_type: str, what: str, model: PreTrainedModel) -> Any:
    for entry in table:
        if entry.model_type == model_type:
            return entry
    known = ", ".join(entry.model_type for entry in table)
    raise UserError(
        f"kvw does not know the {what} '{model_type}' ({type(model).__name__}).",
        found=describe_candidates(model),
        do=f"use one of: {known}; or add the family in kvw/models/families.py",
    )


def _submodule(model: PreTrainedModel, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise UserError(f"{type(model).__name__} has no module '{path}'.", found=describe_candidates(model)) from error


def _value_projection(name: str, module: nn.Module, text_config: Any) -> nn.Linear:
    wanted = (int(text_config.hidden_size), int(text_config.intermediate_size))
    if isinstance(module, nn.Linear) and (module.out_features, module.in_features) == wanted:
        return module
    raise UserError(
        f"{name} is not the value projection that the model's configuration describes.",
        found=str(module),
        do=f"expected a linear map from the FFN width {wanted[1]} to the hidden width {wanted[0]}",
    )
