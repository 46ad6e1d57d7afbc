"""The settings of methods that train, as a recipe has them; importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kvw.data.benchmarks.items import known
from kvw.errors import UserError
from kvw.methods.gradient.settings import SETTINGS, UNTRAINED
from kvw.methods.grid import every_combination
from kvw.training.settings import LoraSettings, TrainingSettings

TABLE, ADAPTERS = "training", "lora"
"""Tables of a recipe's method: how to train (optional, its keys may stand beside the method's own), and adapters."""


@dataclass(frozen=True)
class TrainedSettings:
    """Everything that a method needs that trains.

    Args:
        method: Its name.
        method_settings: Of the class that the method states.
        training: How to train; None for a method without training.
    """

    method: str
    method_settings: Any
    training: TrainingSettings | None


def combinations(name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the values of a recipe, flat: ``{"beta": 0.1, "learning_rate": 1e-4, "lora.rank": 8}``.

    Args:
        name: The method.
        values: Settings of the method and of training; a list stands for several values to try. Those of training may
            be in a table ``training``, those of adapters are in a table ``lora`` (empty for LoRA with its defaults).

    Raises:
        UserError: There is no such setting, it is there twice, a value makes no sense, or there are too many.
    """
    found = every_combination(name, _flat(name, values))
    for settings in found:
        build_settings(name, settings)
    return found


def build_settings(name: str, values: Mapping[str, Any]) -> TrainedSettings:
    """Settings from one of the :func:`combinations`.

    Raises:
        UserError: A value makes no sense.
    """
    settings = SETTINGS[name]
    own: dict[str, Any] = {}
    training: dict[str, Any] = {}
    lora: dict[str, Any] | None = None
    for key, value in values.items():
        value = tuple(value) if isinstance(value, list) else value
        if key == ADAPTERS:
            lora = lora or {}
        elif key.startswith(f"{ADAPTERS}."):
            lora = {**(lora or {}), key.removeprefix(f"{ADAPTERS}."): value}
        elif key in _names(settings):
            own[key] = value
        else:
            training[key] = value
    try:
        if lora is not None:
            training[ADAPTERS] = LoraSettings(**lora)
        how = TrainingSettings(**training) if name not in UNTRAINED else None
        return TrainedSettings(name, settings(**own), how)
    except TypeError as error:
        raise UserError(f"The settings of method {name} cannot be used.", found=str(error)) from error


def _flat(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    trained = _names(TrainingSettings) if name not in UNTRAINED else {}
    names = {**_names(SETTINGS[name]), **trained, **({TABLE: None} if trained else {})}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        known(key, names, "setting", f"method {name}")
        if key == TABLE:
            inner = {known(one, trained, "setting", f"{TABLE} of method {name}"): of for one, of in _table(key, value)}
        else:
            inner = {key: value}
        for one, of in inner.items():
            if one in flat:
                raise UserError(f"Setting {one} of method {name} is there twice.", do=f"leave it out of {TABLE}")
            flat |= _adapters(name, of) if one == ADAPTERS else {one: of}
    return flat


def _adapters(name: str, value: Any) -> dict[str, Any]:
    """The table of adapters, flat; itself if it is empty, which asks for the defaults."""
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
