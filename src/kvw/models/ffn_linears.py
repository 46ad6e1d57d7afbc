"""All linear maps of the dense FFNs of a decoder, by structure: those that read and the value matrix that writes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.models.finding import find_value_matrices, in_layers
from kvw.models.quantised import refuse_quantised
from kvw.models.value_matrix import Parameter, linear_shape


@dataclass(frozen=True)
class FfnLinear:
    """One linear map of an FFN.

    Args:
        layer: 0-based decoder layer.
        weight: Its weight, in the library's orientation.
        module: The map.
    """

    layer: int
    weight: Parameter
    module: nn.Module


def ffn_linears(model: PreTrainedModel, layers: tuple[int, int] | None = None) -> list[FfnLinear]:
    """The linear maps of the FFNs of some layers, layer by layer: gate, up and down, or what the family has.

    Args:
        model: A loaded model of a known family.
        layers: First and last decoder layer, 0-based, both included; None for all.

    Raises:
        UserError: The model does not have these layers, has experts, or holds quantised weights.
    """
    matrices = in_layers(find_value_matrices(model), layers)
    if any(matrix.key.expert is not None for matrix in matrices):
        raise UserError(
            "This method changes all maps of dense FFNs, and the model has experts.",
            found=type(model).__name__,
            do="use another method: kvw methods lists them",
        )
    found = []
    for matrix in matrices:
        holder = matrix.name.rpartition(".")[0]
        for name, module in model.get_submodule(holder).named_children():
            if linear_shape(module) is not None:
                refuse_quantised(f"{holder}.{name}", module)
                found.append(FfnLinear(matrix.key.layer, Parameter(f"{holder}.{name}", module, "weight"), module))
    return found
