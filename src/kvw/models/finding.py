"""The value matrices of a live model: where its family says, proven by their wiring."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.models.candidates import describe_candidates
from kvw.models.detection import confirmed_matrices, decoder_depth, detect
from kvw.models.experts import ListedExpert, expert_matrices
from kvw.models.families import DECODERS, FAMILIES, Decoder
from kvw.models.parts import Part
from kvw.models.value_matrix import MatrixKey, ValueMatrix, linear_shape


def find_value_matrices(model: PreTrainedModel, part: Part = "ffn") -> list[ValueMatrix]:
    """Find the value matrices of the language decoder, layer by layer.

    The family says where they should be. What is there must be a linear map from the FFN's width, which its
    up projection states, to the hidden width of the model's configuration; at least one for every decoder layer.

    What attention writes is a matrix times coefficients, too: its output projection and what the heads have gathered.
    Not every layer needs to have one, and of a model whose FFNs were confirmed by hand kvw knows none.

    Args:
        model: A loaded Hugging Face model.
        part: Which are wanted.

    Returns:
        Layer by layer: that of attention; one entry for a dense FFN; for a mixture of experts what all tokens pass,
        then every expert.

    Raises:
        UserError: The family is not known (the message lists what the model holds), a module is missing, or it is
            not wired as an FFN or attention; or only attention is wanted and none is known.
    """
    if hasattr(model, "peft_config"):
        raise UserError(
            "The model carries a PEFT adapter, and an edit would scale its base weights only.",
            do="merge the adapter first: model = model.merge_and_unload()",
        )
    if (confirmed := confirmed_matrices(model)) is not None:
        found = confirmed if part != "attention" else []
    else:
        text_config = model.config.get_text_config()
        decoder = find_decoder(text_config.model_type, model)
        path, hidden = find_layers(model), int(text_config.hidden_size)
        found = []
        for index in range(decoder_depth(text_config)):
            if part != "ffn":
                found += _attention(model, decoder, f"{path}.{index}", index, hidden)
            if part != "attention":
                found += _layer_matrices(model, decoder, f"{path}.{index}", index, hidden)
    if not found:
        raise UserError(
            "kvw does not know where this model's attention writes.",
            found=describe_candidates(model),
            do="weaken only its FFNs (matrices=ffn), or add it in kvw/models/families.py",
        )
    return found


def find_layers(model: PreTrainedModel) -> str:
    """Dotted path of the list of the language decoder's layers.

    Raises:
        UserError: The family is not known, or there is no list of as many layers as the configuration says.
    """
    if (confirmed := confirmed_matrices(model)) is not None:
        return confirmed[0].name.partition(".0.")[0]
    text_config = model.config.get_text_config()
    decoder = find_decoder(text_config.model_type, model)
    path = _joined(_decoder_path(model, text_config.model_type, decoder), decoder.layers)
    layers = _submodule(model, path)
    expected = decoder_depth(text_config)
    if not isinstance(layers, nn.ModuleList) or len(layers) != expected:
        raise UserError(
            f"{type(model).__name__}.{path} is not a list of {expected} decoder layers.",
            found=describe_candidates(model),
            do="name the value matrices with --value-matrices, as kvw inspect suggests",
        )
    return path


def find_decoder(model_type: str, model: PreTrainedModel) -> Decoder:
    """The entry of a text decoder.

    Raises:
        UserError: There is none; the message lists what the model holds.
    """
    for decoder in DECODERS:
        if model_type in decoder.model_types:
            return decoder
    raise UnknownFamily("text decoder", model_type, [name for entry in DECODERS for name in entry.model_types], model)


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
        first_default, last_default = default_layers(last + 1)
        raise UserError(
            f"The layer range {start}:{end} does not fit this model.",
            found=f"layers 0 to {last}",
            do=f"give first and last layer, both included, for example {first_default}:{last_default}",
        )
    return [matrix for matrix in matrices if start <= matrix.key.layer <= end]


def in_layers(matrices: Sequence[ValueMatrix], layers: tuple[int, int] | None) -> list[ValueMatrix]:
    """As :func:`select_layers`, but all layers for None."""
    return list(matrices) if layers is None else select_layers(matrices, layers)


def default_layers(count: int) -> tuple[int, int]:
    """Layers 1 to L - 3, both included, kept within a model of ``count`` layers."""
    end = max(count - 3, 0)
    return min(1, end), end


def _decoder_path(model: PreTrainedModel, text_type: str, decoder: Decoder) -> str:
    model_type = model.config.model_type
    for family in FAMILIES:
        if model_type in family.model_types:
            return _joined(family.decoder, decoder.causal if family.causal else "")
    if model_type == text_type:
        return decoder.causal
    known = [name for family in FAMILIES for name in family.model_types]
    raise UnknownFamily("vision-language family", model_type, known, model)


def _layer_matrices(model: PreTrainedModel, decoder: Decoder, layer: str, index: int, hidden: int) -> list[ValueMatrix]:
    """All value matrices of one layer: of the dense FFN, or of the experts and of what stands beside them."""
    experts = decoder.experts and _optional(model, f"{layer}.{decoder.experts}")
    if not experts:
        return [_dense(model, f"{layer}.{decoder.value}", f"{layer}.{decoder.up_projection}", index, hidden)]
    matrices: list[ValueMatrix] = []
    value_leaf, up_leaf = decoder.value.rpartition(".")[2], decoder.up_projection.rpartition(".")[2]
    for beside in (decoder.value.rpartition(".")[0], decoder.shared):
        if beside and _optional(model, f"{layer}.{beside}.{value_leaf}"):
            name = f"{layer}.{beside}"
            matrices.append(_dense(model, f"{name}.{value_leaf}", f"{name}.{up_leaf}", index, hidden))
    if isinstance(experts, nn.ModuleList):
        block = _submodule(model, f"{layer}.{decoder.experts}".rpartition(".")[0])
        for number in range(len(experts)):
            name = f"{layer}.{decoder.experts}.{number}"
            value = _dense(model, f"{name}.{value_leaf}", f"{name}.{up_leaf}", index, hidden)
            up = _submodule(model, f"{name}.{up_leaf}")
            matrices.append(ListedExpert(MatrixKey(index, number), value.name, value.module, up, block))
        return matrices
    router = _submodule(model, f"{layer}.{decoder.router}") if decoder.router else None
    matrices.extend(expert_matrices(index, f"{layer}.{decoder.experts}", experts, router))
    if matrices[-1].hidden != hidden:
        raise UserError(
            f"{matrices[-1].name} are not the experts of this decoder.",
            found=f"they lead to a width of {matrices[-1].hidden}",
            do=f"expected the hidden width {hidden}",
        )
    return matrices


def _dense(model: PreTrainedModel, name: str, up_name: str, index: int, hidden: int) -> ValueMatrix:
    value = _submodule(model, name)  # a quantised linear map may be of any class
    up = linear_shape(_submodule(model, up_name))
    shape = linear_shape(value)
    wired = shape and up and up[0] == hidden == shape[1] and up[1] in (shape[0], 2 * shape[0])
    if not wired:
        raise UserError(
            f"{name} is not the value projection of an FFN.",
            found=f"(in, out) = {shape or type(value).__name__} after {up_name} {up}",
            do=f"expected a linear map back to the hidden width {hidden} from the width that {up_name} leads to",
        )
    return ValueMatrix(MatrixKey(index), name, value)


def _attention(model: PreTrainedModel, decoder: Decoder, layer: str, index: int, hidden: int) -> list[ValueMatrix]:
    """The output projection of a layer's attention; none if the layer has no attention."""
    name = next((f"{layer}.{place}" for place in decoder.attention if _optional(model, f"{layer}.{place}")), None)
    if name is None:
        return []
    module = _submodule(model, name)
    shape = linear_shape(module)
    readers = map(linear_shape, _submodule(model, name.rpartition(".")[0]).children())
    if not shape or shape[1] != hidden or not any(reader and reader[0] == hidden for reader in readers):
        raise UserError(
            f"{name} is not the output projection of attention.",
            found=f"(in, out) = {shape or type(module).__name__}",
            do=f"expected a linear map to the hidden width {hidden}, beside others that read from it",
        )
    return [ValueMatrix(MatrixKey(index, attention=True), name, module)]


def _optional(model: PreTrainedModel, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _submodule(model: PreTrainedModel, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise UserError(
            f"{type(model).__name__} has no module '{path}'.",
            found=describe_candidates(model),
            do="name a module of the model",
        ) from error


class UnknownFamily(UserError):
    """A model that the tables do not know, with what its structure looks like."""

    def __init__(self, what: str, model_type: str, known: Sequence[str], model: PreTrainedModel) -> None:
        self.detected = detect(model)
        if len(self.detected) == 1:
            found = f"by structure: {self.detected[0]}"
            do = f"if these are its FFNs, confirm it with --value-matrices '{self.detected[0].template}'"
        elif self.detected:
            found = "by structure, and only one can be right: " + "; ".join(map(str, self.detected))
            do = "choose one with --value-matrices TEMPLATE"
        else:
            found = describe_candidates(model)
            do = f"use one of: {', '.join(sorted(known))}; or add it in kvw/models/families.py"
        super().__init__(f"kvw does not know the {what} '{model_type}' ({type(model).__name__}).", found=found, do=do)


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
