"""Settings from text: what a recipe or a command line says, as a dataclass that has checked it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from kvw.errors import UserError
from kvw.known import known

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import TypeAdapter

Settings = TypeVar("Settings", bound="DataclassInstance")


def read_settings(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Settings from the values of a recipe or a command line, all at once.

    Args:
        kind: Their dataclass.
        values: Values by name; as they are or as text. Layers are written ``1:25``, nothing ``none``, and a value
            inside a group of settings ``sources.answer``.
        where: What has these settings, for messages.

    Raises:
        UserError: There is no such setting, one is missing, or a value makes no sense.
    """
    from pydantic import ValidationError

    read = _read_all(kind, values, where)
    try:
        settings: Settings = _adapter(kind).validate_python(read)
    except ValidationError as error:
        first = error.errors()[0]
        name, *inside = map(str, first["loc"])
        place = f"{name}.{inside[-1]}" if inside and group_of(get_type_hints(kind)[name]) else name
        if first["type"] == "missing" and not inside:
            raise UserError(f"{where} needs a value for {place}.", do=f"add --set {place}=VALUE") from error
        raise UserError(
            f"Setting {place} of {where} cannot be used.",
            found=f"{first['input']!r}: {first['msg']}",
            do="see: kvw methods NAME",
        ) from error
    return settings


@cache
def _adapter(kind: type[Settings]) -> TypeAdapter[Settings]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def group_of(hint: Any) -> type[Any] | None:
    """The dataclass of a group of settings, which may be left out as a whole; None if it is a single setting."""
    return next((kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)), None)


def _read_all(kind: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values by name, each as what its text stands for, groups as mappings."""
    hints = get_type_hints(kind)
    names = {field.name: hints[field.name] for field in fields(kind)}
    groups: dict[str, dict[str, Any]] = {}
    read: dict[str, Any] = {}
    for key, value in values.items():
        name, dot, rest = key.partition(".")
        hint = names[known(name, names, "setting", where)]
        if group_of(hint) and (dot or isinstance(value, Mapping)):
            groups.setdefault(name, {}).update({rest: value} if dot else value)
        elif dot:
            raise UserError(f"Setting {name} of {where} is no group.", found=key, do=f"write {name}=VALUE")
        else:
            read[name] = _read(name, value, hint, where)
    for name, inside in groups.items():
        read[name] = _read_all(group_of(names[name]) or kind, inside, f"{name} of {where}")
    return read


def default_of(field: Field[Any]) -> Any:
    """The default of a field of a dataclass; ``dataclasses.MISSING`` if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _read(name: str, value: Any, hint: Any, where: str) -> Any:
    """A value that may be text: ``none``, ``1:25`` for layers, ``1, 2`` or JSON's ``["1", "2"]`` for several."""
    if value == "none":
        return None
    if isinstance(value, bool) and bool not in (hint, *get_args(hint)):
        raise UserError(f"Setting {name} of {where} cannot be used.", found=str(value), do="see: kvw methods NAME")
    if name == "layers":
        return _read_layers(value, where)
    if get_origin(hint) is tuple and isinstance(value, str):
        with suppress(ValueError, RecursionError):
            if isinstance(several := json.loads(value), list):
                return tuple(several)
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _read_layers(value: Any, where: str) -> Any:
    """Read ``1:25``."""
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
