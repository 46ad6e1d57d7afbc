"""Linear maps whose weight is kept in fewer bits than it computes with: recognised, measured, never rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from kvw.errors import UserError
from kvw.models.config_check import check_config
from kvw.models.json_file import read_object

Quantise = Literal["8bit", "4bit"]
"""How a full-precision checkpoint may be quantised while it is loaded, by bitsandbytes: LLM.int8 or NF4."""
FULL_PRECISION = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""What a weight can be scaled in. A float of eight bits keeps three of them at most, and its scale elsewhere."""


def quantisation(module: nn.Module) -> str | None:
    """The scheme in which a linear map keeps its weight, for instance ``bitsandbytes Linear4bit``.

    A name of the library and what it calls the module or the weight; None if the weight is a plain tensor of full
    precision. Not the dtype decides: tensor subclasses (torchao) claim the dtype they compute in, and
    compressed-tensors keeps a module's scheme in force after it has unpacked the weight on the first forward.
    """
    weight = module._parameters.get("weight")
    if _library(type(module)) == "bitsandbytes":
        return f"bitsandbytes {type(module).__name__}"
    if getattr(module, "quantization_scheme", None) is not None:
        return f"compressed-tensors {type(module).__name__}"
    if weight is not None and _library(type(weight)) != "torch":
        return f"{_library(type(weight))} {type(weight).__name__}"
    if weight is not None and weight.dtype not in FULL_PRECISION:
        return f"{type(module).__name__} in {str(weight.dtype).removeprefix('torch.')}"
    if weight is None and packed_shape(module):
        return f"{_library(type(module))} {type(module).__name__}"
    return None


def packed_shape(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a quantised linear map of a class of its own (GPTQ, AWQ and others); None if it is none.

    Such a class states both widths and keeps its weight in integers or in floats of eight bits.
    """
    for names in (("in_features", "out_features"), ("infeatures", "outfeatures")):
        shape = tuple(getattr(module, name, None) for name in names)
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if all(isinstance(size, int) for size in shape) and any(value.dtype not in FULL_PRECISION for value in own):
            return shape  # type: ignore[return-value]
    return None


def refuse_quantised(name: str, module: nn.Module) -> None:
    """Refuse to read or write the weight of a quantised linear map.

    Scaled columns would have to be quantised again, and what an edit took away could come back in the rounding.

    Raises:
        UserError: The weight is quantised; the message says what works instead.
    """
    scheme = quantisation(module)
    if scheme:
        raise UserError(
            f"{name} holds quantised weights, which an edit cannot be folded into.",
            found=scheme,
            do="attach the edit instead (not one made with --parity, which rewrites weights), "
            "or fold it into the full-precision checkpoint with: kvw apply",
        )


def stored_quantisation(folder: Path) -> str | None:
    """The scheme in which a checkpoint's files hold quantised weights, by its ``config.json``; None for none."""
    check_config(folder)
    config = read_object(folder / "config.json")
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        found = part.get("quantization_config") or part.get("compression_config")
        if found:
            return str(found.get("quant_method") or "unnamed")
    return None


def refuse_stored_quantised(name: str, folder: Path) -> None:
    """Refuse to fold an edit into a checkpoint whose files hold quantised weights.

    Raises:
        UserError: The files hold quantised weights.
    """
    scheme = stored_quantisation(folder)
    if scheme:
        raise UserError(
            f"The checkpoint {name} holds quantised weights, which an edit cannot be folded into.",
            found=f"quantization_config of {scheme} in config.json",
            do="keep the edit (kvw erase --no-model) and attach it (kvw chat --edit, kvw evaluate --edit), "
            "or fold it into the full-precision checkpoint with: kvw apply",
        )


def plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every plain tensor that a module itself keeps, with its name: parameters and buffers, packed ones taken apart.

    A tensor subclass is data and scales; the scales of bitsandbytes hang on its parameters as attributes.
    """
    for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield from _taken_apart(name, value)
        state = getattr(value, "quant_state", None)
        scales = (getattr(value, "SCB", None), getattr(state, "absmax", None))
        yield from ((f"{name}.scales", scale) for scale in scales if isinstance(scale, Tensor))


def _taken_apart(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if not is_traceable_wrapper_subclass(value):
        yield name, value
        return
    parts, _ = value.__tensor_flatten__()
    for part in parts:
        yield from _taken_apart(f"{name}.{part}", getattr(value, part))


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]
