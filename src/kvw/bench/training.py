"""The methods that train, as methods of a recipe."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from kvw.data import Example
from kvw.data.benchmarks import BenchmarkData
from kvw.data.benchmarks.items import known
from kvw.errors import UserError
from kvw.evaluation.attacks.keeping import weights_kept
from kvw.methods.gradient import find_method, unlearn
from kvw.methods.gradient.dpo import DpoSettings
from kvw.progress import Progress
from kvw.runs.loaded import Loaded
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
        UserError: There is no such setting, it is there twice, or a value makes no sense.
    """
    flat = _flat(name, values)
    for key, value in flat.items():
        if value == []:
            raise UserError(f"Setting {key} of method {name} lists no value.", do="give it one, or leave it out")
    tried = [[(key, one) for one in (value if isinstance(value, list) else [value])] for key, value in flat.items()]
    found = [dict(pairs) for pairs in itertools.product(*tried)]
    for settings in found:
        build_settings(name, settings)
    return found


def build_settings(name: str, values: Mapping[str, Any]) -> TrainedSettings:
    """Settings from one of the :func:`combinations`.

    Raises:
        UserError: A value makes no sense.
    """
    method = find_method(name)
    own: dict[str, Any] = {}
    training: dict[str, Any] = {}
    lora: dict[str, Any] | None = None
    for key, value in values.items():
        value = tuple(value) if isinstance(value, list) else value
        if key == ADAPTERS:
            lora = lora or {}
        elif key.startswith(f"{ADAPTERS}."):
            lora = {**(lora or {}), key.removeprefix(f"{ADAPTERS}."): value}
        elif key in _names(method.settings):
            own[key] = value
        else:
            training[key] = value
    try:
        if lora is not None:
            training[ADAPTERS] = LoraSettings(**lora)
        how = TrainingSettings(**training) if method.build is not None else None
        return TrainedSettings(name, method.settings(**own), how)
    except TypeError as error:
        raise UserError(f"The settings of method {name} cannot be used.", found=str(error)) from error


def first_wrong_answers(data: BenchmarkData) -> tuple[str, ...]:
    """For each forget example its first wrong answer, which DPO prefers; empty where the benchmark has none."""
    items = data.training.get("forget", ())
    return tuple(item.perturbed[0] for item in items) if all(item.perturbed for item in items) else ()


def train_and_put_back(
    loaded: Loaded,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: TrainedSettings,
    others: Sequence[str],
    folder: Path,
    state: Path,
    progress: Progress,
) -> None:
    """Unlearn by training, write what changed, and give the model its weights back bit for bit.

    Args:
        loaded: The model; takes main memory for a copy of its weights meanwhile.
        forget: Forget examples.
        retain: Retain examples.
        settings: From :func:`build_settings`.
        others: From :func:`first_wrong_answers`; for DPO, if the recipe gives none.
        folder: Where the result goes; it appears when it is complete.
        state: Where training keeps its state, and goes on from it; removed at the end.
        progress: Called with steps done and their number.

    Raises:
        UserError: See :func:`kvw.methods.gradient.unlearn`.
    """
    own = settings.method_settings
    if isinstance(own, DpoSettings) and not own.alternatives:
        own = replace(own, alternatives=tuple(others))
    trains = settings.training is not None
    state.parent.mkdir(parents=True, exist_ok=True)
    with weights_kept(loaded.model):
        result = unlearn(
            loaded.model,
            loaded.processor,
            forget,
            retain,
            settings.method,
            own,
            settings.training,
            state=state if trains else None,
            progress=progress,
        )
        result.save(folder)
    state.unlink(missing_ok=True)


def _flat(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    method = find_method(name)
    trained = _names(TrainingSettings) if method.build is not None else {}
    names = {**_names(method.settings), **trained, **({TABLE: None} if trained else {})}
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
