"""Settings from text: what a recipe or a command line says, as a dataclass that has checked it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_origin, get_type_hints

from kvw.errors import UserError
from kvw.known import known

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def read_settings(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Settings from the values of a recipe or a command line.

    Args:
        kind: Their dataclass.
        values: By name; as they are or as text. Layers are written ``1:25``, nothing ``none``, and a value inside a
            group of settings ``sources.answer``.
        where: What has these settings, for messages.

    Raises:
        UserError: There is no such setting, one is missing, or a value makes no sense.
    """
    names, hints = {field.name: field for field in fields(kind)}, get_type_hints(kind)
    groups: dict[str, dict[str, Any]] = {}
    found: dict[str, Any] = {}
    for key, value in values.items():
        name, dot, rest = key.partition(".")
        known(name, names, "setting", where)
        inner = hints[name]
        if is_dataclass(inner) and (dot or isinstance(value, Mapping)):
            groups.setdefault(name, {}).update({rest: value} if dot else value)
        elif dot:
            raise UserError(f"Setting {name} of {where} is no group.", found=key, do=f"write {name}=VALUE")
        else:
            found[name] = read_value(name, value, inner, where)
    for name, inside in groups.items():
        found[name] = read_settings(hints[name], inside, f"{name} of {where}")
    missing = [name for name, field in names.items() if name not in found and default_of(field) is MISSING]
    if missing:
        raise UserError(f"{where} needs a value for {missing[0]}.", do=f"add --set {missing[0]}=VALUE")
    return kind(**found)


def read_value(name: str, value: Any, hint: Any, where: str) -> Any:
    """The value of one setting, which may be text.

    Raises:
        UserError: It makes no sense.
    """
    from pydantic import TypeAdapter, ValidationError

    value = _read(name, value, hint, where)
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(
            f"Setting {name} of {where} cannot be used.", found=f"{value!r}: {reason}", do="see: kvw methods NAME"
        ) from error


def default_of(field: Field[Any]) -> Any:
    """The default of a field of a dataclass; ``dataclasses.MISSING`` if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _read(name: str, value: Any, hint: Any, where: str) -> Any:
    """A value that may be text: ``none``, ``1:25`` for layers, ``1, 2`` or JSON's ``["1", "2"]`` for several."""
    if value == "none":
        return None
    if name == "layers":
        return _read_layers(value, where)
    if get_origin(hint) is tuple and isinstance(value, str):
        with suppress(ValueError, RecursionError):
            if isinstance(several := json.loads(value), list):
                return tuple(several)
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _read_layers(value: Any, where: str) -> Any:
    """Read ``1:25``.

    Raises:
        UserError: It does not have that form.
    """
    if not isinstance(value, str):
        return value
    first, _, last = value.partition(":")
    if not all(part.isascii() and part.isdigit() for part in (first, last)):
        raise UserError(
            f"layers of {where} needs the first and the last layer.",
            found=value,
            do="write it as FIRST:LAST, for example 1:25",
        )
    return int(first), int(last)
