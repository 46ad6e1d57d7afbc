"""The methods that a recipe can name; importing this loads nothing heavy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kvw.data.benchmarks.items import known
from kvw.errors import UserError
from kvw.methods.settings import KvwSettings
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.subspace.settings import SubspaceSettings


@dataclass(frozen=True)
class Method:
    """A method of unlearning.

    Args:
        settings: Its settings, a dataclass that checks its values.
        home: Module and function that runs it: (loaded model, forget examples, retain examples, settings) -> Edit.
    """

    settings: type[Any]
    home: tuple[str, str]


METHODS = {
    "kvw": Method(KvwSettings, ("kvw.bench.unlearning", "kvw_edit")),
    "subspace": Method(SubspaceSettings, ("kvw.bench.unlearning", "subspace_edit")),
    "steering": Method(SteeringSettings, ("kvw.bench.unlearning", "steering_edit")),
}


def get_method(name: str) -> Method:
    """A method by name.

    Raises:
        UserError: There is none; the message names the closest.
    """
    return METHODS[known(name, METHODS, "method", "kvw")]


def combinations(name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the settings of a recipe; a list stands for several values to try.

    Args:
        name: The method.
        values: Settings by name; ``layers`` is written as ``"1:25"``.

    Returns:
        At least one set of settings, in the order in which the recipe lists them.

    Raises:
        UserError: There is no such method or setting, or a value makes no sense.
    """
    method = get_method(name)
    names = {field.name: field for field in fields(method.settings)}
    lists = []
    for key, value in values.items():
        known(key, names, "setting", f"method {name}")
        tried = value if isinstance(value, list) else [value]
        if not tried:
            raise UserError(f"Setting {key} of method {name} lists no value.", do="give it one, or leave it out")
        lists.append([(key, one) for one in tried])
    found = [dict(pairs) for pairs in itertools.product(*lists)]
    for settings in found:
        build_settings(name, settings)
    return found


def build_settings(name: str, values: Mapping[str, Any]) -> Any:
    """The settings of a method from a recipe's values.

    Raises:
        UserError: A value makes no sense.
    """
    values = dict(values)
    if isinstance(values.get("layers"), str):
        first, _, last = values["layers"].partition(":")
        if not (first.isdigit() and last.isdigit()):
            raise UserError(
                "layers needs the first and the last layer.", found=values["layers"], do='write it as "1:25"'
            )
        values["layers"] = (int(first), int(last))
    try:
        return get_method(name).settings(**values)
    except TypeError as error:
        raise UserError(f"The settings of method {name} cannot be used.", found=str(error)) from error
