"""The settings of methods that train: their own, and how to train. Importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kvw.errors import UserError
from kvw.known import known
from kvw.methods.reading import read_settings
from kvw.training.settings import ADAPTERS, LoraSettings, TrainingSettings

TABLE = "training"
"""Table of a recipe's method: how to train (optional, its keys may stand beside the method's own)."""


@dataclass(frozen=True)
class TrainedSettings:
    """Everything that a method needs that trains.

    Args:
        method: Its name.
        method_settings: Settings of the class that the method states.
        training: How to train; None for a method without training.
    """

    method: str
    method_settings: Any
    training: TrainingSettings | None


def steps(training: TrainingSettings, examples: int) -> int:
    """How many optimiser steps a forget set of ``examples`` examples makes."""
    return -(-examples // (training.batch_size * training.accumulation)) * training.epochs


def flat(name: str, own: type[Any], values: Mapping[str, Any], *, trains: bool) -> dict[str, Any]:
    """The values of a recipe, flat: ``{"beta": 0.1, "learning_rate": 1e-4, "lora.rank": 8}``.

    Args:
        name: The method.
        own: Its own settings.
        values: Settings of the method and of training. Those of training may be in a table ``training``, those of
            adapters are in a table ``lora`` (empty for LoRA with its defaults).
        trains: Whether there are settings of training.

    Raises:
        UserError: There is no such setting, or it is there twice.
    """
    trained = _names(TrainingSettings) if trains else {}
    names = {**_names(own), **trained, **({TABLE: None} if trained else {})}
    values_of: dict[str, Any] = {}
    for key, value in values.items():
        top, _, rest = key.partition(".")
        known(top if top == ADAPTERS else key, names, "setting", f"method {name}")
        if top == ADAPTERS and rest:
            known(rest, _names(LoraSettings), "setting", f"{ADAPTERS} of method {name}")
        if key == TABLE:
            inner = {known(one, trained, "setting", f"{TABLE} of method {name}"): of for one, of in _table(key, value)}
        else:
            inner = {key: value}
        for one, of in inner.items():
            if one in values_of:
                raise UserError(f"Setting {one} of method {name} is there twice.", do=f"leave it out of {TABLE}")
            values_of |= _adapters(name, of) if one == ADAPTERS else {one: of}
    return values_of


def read(name: str, own: type[Any], values: Mapping[str, Any], *, trains: bool) -> TrainedSettings:
    """The settings from flat values, see :func:`flat`; they may be text.

    Raises:
        UserError: A value makes no sense.
    """
    where, names = f"method {name}", _names(own)
    training = {key: value for key, value in values.items() if key not in names}
    return TrainedSettings(
        name,
        read_settings(own, {key: value for key, value in values.items() if key in names}, where),
        read_settings(TrainingSettings, training, where) if trains else None,
    )


def _adapters(name: str, value: Any) -> dict[str, Any]:
    """The table of adapters, flat; itself if it is empty, which asks for the defaults."""
    if value is None or value == "none":
        return {}
    table = _table(ADAPTERS, value)
    for key, _ in table:
        known(key, _names(LoraSettings), "setting", f"{ADAPTERS} of method {name}")
    return {f"{ADAPTERS}.{key}": of for key, of in table} or {ADAPTERS: {}}


def _table(key: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise UserError(f"{key} must be a table.", found=repr(value), do=f"write {key} = {{ ... }}")
    return list(value.items())


def _names(settings: type[Any]) -> dict[str, None]:
    return dict.fromkeys(field.name for field in fields(settings))
