"""How transformers names what the forward of a model takes; found by signature, since names change with releases."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import Cache

from kvw.errors import UserError

CACHE_NAMES = ("cache", "past_key_values")
"""What the keys and values of earlier tokens are or were called, as argument and in the output; the newest first."""


def takes(model: nn.Module, name: str) -> bool:
    """Whether the forward of a model has an argument of this name."""
    return name in inspect.signature(model.forward).parameters


def cache_name(model: nn.Module) -> str:
    """The argument for the keys and values of earlier tokens; the output has them under the same name.

    Raises:
        UserError: The forward has no such argument.
    """
    for name in CACHE_NAMES:
        if takes(model, name):
            return name
    raise UserError(
        "It is unknown how this model takes the keys and values of earlier tokens.",
        found=f"{type(model).__name__}.forward({', '.join(inspect.signature(model.forward).parameters)})",
        do="use the model's class in transformers, or report its name and the version of transformers",
    )


def given_cache(named: Mapping[str, Any]) -> Cache | None:
    """The keys and values of earlier tokens among the arguments of a forward, under whichever name a caller used."""
    return next((named[name] for name in CACHE_NAMES if named.get(name) is not None), None)


def kept_cache(model: nn.Module, output: Any) -> Cache | None:
    """The keys and values in what a forward of a model gave; None if it keeps none."""
    return next((getattr(output, name, None) for name in CACHE_NAMES if takes(model, name)), None)


def named_arguments(model: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Everything a forward is called with, by name."""
    if not inputs:
        return named
    return {**dict(zip(inspect.signature(model.forward).parameters, inputs, strict=False)), **named}
