"""Finding the FFN of an unknown text decoder by shape and wiring, for a human to confirm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.models.candidates import Candidate
from kvw.models.value_matrix import MatrixKey, ValueMatrix, linear_shape

CONFIRMED = "kvw_value_matrices"
"""Attribute of a model in which a confirmed template is kept."""


def detect(model: PreTrainedModel) -> list[Candidate]:
    """Everything in a model that is built and placed like the FFNs of its text decoder.

    - The list of layers stands beside the input embedding of the text, in the same module, and has as many layers as
      the configuration says. (So neither a vision tower nor a projector can be meant.)
    - In every layer, at the same place, one module holds one linear map to the hidden width and one or two that lead
      from it to the width of the former (or one to twice that width), and no other. Attention has three or more.
    - No layer holds matrices of many experts in one parameter: the FFN beside them would be half of the truth.

    Returns:
        One entry for each place in the layers; several mean that the structure does not tell which one is meant.
    """
    text_config = model.config.get_text_config()
    hidden, depth = int(getattr(text_config, "hidden_size", 0)), decoder_depth(text_config)
    stack = _module_with_embedding(model)
    candidates = []
    for name, layers in stack[1].named_children() if stack else ():
        if isinstance(layers, nn.ModuleList) and len(layers) == depth:
            path = f"{stack[0]}.{name}".strip(".") if stack else name
            if any(_holds_experts(layer) for layer in layers):
                continue
            shared = set.intersection(*(set(ffns(layer, hidden)) for layer in layers))
            candidates += [Candidate(f"{path}.*.{place}", depth, width, hidden) for place, width in sorted(shared)]
    return candidates


def confirm_value_matrices(model: PreTrainedModel, template: str) -> None:
    """Say where the value matrices of a model of an unknown family are; kept with the model from now on.

    Args:
        model: A loaded model.
        template: Dotted name of the value projections with ``*`` for the layer's number, as ``kvw inspect`` prints it.

    Raises:
        UserError: The model has no such FFNs.
    """
    detected = detect(model)
    if template not in [entry.template for entry in detected]:
        raise UserError(
            f"'{template}' is not the value projection of this model's FFNs.",
            found="; ".join(map(str, detected)) or "nothing that is built like the FFNs of a text decoder",
            do="name one of those found, with * for the layer's number",
        )
    setattr(model, CONFIRMED, template)


def confirmed_matrices(model: PreTrainedModel) -> list[ValueMatrix] | None:
    """The value matrices that :func:`confirm_value_matrices` named; None if it was not called."""
    template = getattr(model, CONFIRMED, None)
    if template is None:
        return None
    names = [template.replace("*", str(layer), 1) for layer in range(decoder_depth(model.config.get_text_config()))]
    return [ValueMatrix(MatrixKey(layer), name, model.get_submodule(name)) for layer, name in enumerate(names)]


def decoder_depth(text_config: Any) -> int:
    """How many layers the decoder has; encoder-decoders count them under names of their own."""
    for name in ("num_decoder_layers", "decoder_layers", "num_hidden_layers"):
        if getattr(text_config, name, None):
            return int(getattr(text_config, name))
    return 0


def _module_with_embedding(model: PreTrainedModel) -> tuple[str, nn.Module] | None:
    """The module that holds the input embedding of the text, with its name."""
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        return None
    for name, module in model.named_modules():
        if module is embedding:
            parent = name.rpartition(".")[0]
            return parent, model.get_submodule(parent)
    return None


def _holds_experts(layer: nn.Module) -> bool:
    return any(parameter.ndim == 3 and min(parameter.shape[1:]) > 1 for parameter in layer.parameters())


def ffns(layer: nn.Module, hidden: int) -> Iterator[tuple[str, int]]:
    """Everything in a layer that is built like an FFN of linear maps.

    Args:
        layer: One decoder layer.
        hidden: The decoder's hidden width.

    Yields:
        Name of the value projection in the layer, and its width.
    """
    for name, module in layer.named_modules():
        shapes = {child: linear_shape(part) for child, part in module.named_children()}
        linear = {child: shape for child, shape in shapes.items() if shape and min(shape) > 1}
        down = [child for child, shape in linear.items() if shape[1] == hidden and shape[0] != hidden]
        if len(down) != 1:
            continue
        width = linear.pop(down[0])[0]
        up = sorted(shape[1] for shape in linear.values() if shape[0] == hidden)
        if len(up) == len(linear) and up in ([width], [width, width], [2 * width]):
            yield re.sub(r"^\.", "", f"{name}.{down[0]}"), width
