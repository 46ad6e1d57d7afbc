"""Which modules of a vision-language model are language, vision tower and projector: by structure, never by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from kvw.errors import UserError
from kvw.models.finding import find_layers
from kvw.models.value_matrix import linear_shape
from kvw.training.settings import Part

DEPTHS = ("depth", "num_hidden_layers", "num_layers")
"""What vision configurations call the number of their layers."""


@dataclass(frozen=True)
class Parts:
    """The parts of a model as dotted names of modules that hold them; no module is in two parts.

    Args:
        language: The text decoder with its embedding, and the output layer.
        vision: Towers whose configuration is a vision configuration.
        projector: What carries the towers' output to the text: whatever stands outside both, or the modules within a
            tower that lead to the text's width if nothing does (Qwen2-VL's merger).
        layers: The list of decoder layers.
        output: The output layer; empty if the model has none.
    """

    language: tuple[str, ...]
    vision: tuple[str, ...]
    projector: tuple[str, ...]
    layers: str
    output: str

    def holds(self, part: Part, name: str) -> bool:
        """Whether a module or parameter of this dotted name belongs to a part."""
        if part == "vision" and within(name, self.projector):
            return False
        return within(name, getattr(self, part))


def within(name: str, holders: Iterable[str]) -> bool:
    """Whether a dotted name is one of the holders or inside one."""
    return any(not holder or name == holder or name.startswith(f"{holder}.") for holder in holders)


def find_parts(model: PreTrainedModel) -> Parts:
    """Find the parts of a model.

    The language part is the largest module that holds the decoder layers and no tower; towers are models of their own
    inside the model, told apart by the type of their configuration.

    Raises:
        UserError: The family is not known.
    """
    layers = find_layers(model)
    inner = {
        name: module
        for name, module in model.named_modules()
        if name and isinstance(module, PreTrainedModel) and not within(layers, [name])
    }
    towers = [name for name in inner if not within(name, set(inner) - {name})]
    visual = {type(value) for name, value in vars(model.config).items() if _is_config(value) and "vision" in name}
    audible = {type(value) for name, value in vars(model.config).items() if _is_config(value) and "audio" in name}
    vision = tuple(name for name in towers if type(inner[name].config) in visual)
    others = tuple(name for name in towers if type(inner[name].config) in audible)
    language = _largest_without(layers, (*vision, *others))
    head = model.get_output_embeddings()
    output = next((name for name, module in model.named_modules() if module is head), "") if head is not None else ""
    if output and not within(output, [language]):
        text: tuple[str, ...] = (language, output)
    else:
        text = (language,)
    taken = (*text, *vision, *others)
    outside = _outside(model, "", taken) if vision else ()
    projector = outside or tuple(name for tower in vision for name in _inner_projector(model, tower))
    return Parts(text, vision, projector, layers, output)


def trained_names(
    model: PreTrainedModel, parts: Sequence[Part], layers: tuple[int, int] | None, names: Iterable[str]
) -> list[str]:
    """The names that belong to one of the parts, and within the language part to a range of layers.

    Args:
        model: A model without adapters.
        parts: What to train.
        layers: First and last decoder layer, 0-based, both included: nothing else of the language part; None for all
            of it.
        names: Dotted names of modules or parameters.

    Raises:
        UserError: The model does not have such a part.
    """
    parts_of = find_parts(model)
    chosen: list[str] = []
    names = list(names)
    for part in parts:
        holders = getattr(parts_of, part)
        if not holders:
            raise UserError(
                f"{type(model).__name__} has no part '{part}' that could be trained.",
                found=f"language: {', '.join(parts_of.language) or 'the whole model'}; "
                f"vision: {', '.join(parts_of.vision) or 'none'}; projector: {', '.join(parts_of.projector) or 'none'}",
                do="train another part",
            )
        here = [name for name in names if parts_of.holds(part, name)]
        if part == "language" and layers is not None:
            kept = [f"{parts_of.layers}.{layer}" for layer in range(layers[0], layers[1] + 1)]
            here = [name for name in here if within(name, kept)]
        chosen += here
    return chosen


def _largest_without(layers: str, others: Sequence[str]) -> str:
    """The shortest prefix of the path to the layers that holds none of the others."""
    steps = layers.split(".")
    for length in range(len(steps)):
        prefix = ".".join(steps[:length])
        if not any(within(other, [prefix]) for other in others):
            return prefix
    return layers


def _outside(model: PreTrainedModel, prefix: str, taken: Sequence[str]) -> tuple[str, ...]:
    """The largest modules with parameters that are outside those taken."""
    names: list[str] = []
    for name, child in model.get_submodule(prefix).named_children():
        path = f"{prefix}.{name}".strip(".")
        if within(path, taken) or next(child.parameters(), None) is None:
            continue
        if any(within(other, [path]) for other in taken):
            names += _outside(model, path, taken)
        else:
            names.append(path)
    return tuple(names)


def _inner_projector(model: PreTrainedModel, tower: str) -> list[str]:
    """Modules beside a tower's blocks with a linear map to the text's hidden width."""
    module = model.get_submodule(tower)
    depth = next((getattr(module.config, name) for name in DEPTHS if hasattr(module.config, name)), 0)
    hidden = int(model.config.get_text_config().hidden_size)
    names = []
    for name, child in module.named_children():
        blocks = isinstance(child, nn.ModuleList) and len(child) == depth
        shapes = [linear_shape(part) for part in child.modules()]
        if not blocks and any(shape and shape[1] == hidden for shape in shapes):
            names.append(f"{tower}.{name}")
    return names


def _is_config(value: object) -> bool:
    return isinstance(value, PretrainedConfig)
