"""What settings a method has, taken from its dataclass; imports nothing heavy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse

from kvw.methods.reading import default_of, group_of
from kvw.methods.registry import get_method, installed


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        name: What ``--set`` and recipes call it; ``group.name`` inside a group.
        kind: Its type.
        default: What it is if nobody says otherwise.
        text: What it does.
    """

    name: str
    kind: str
    default: str
    text: str


def settings_of(name: str) -> list[Setting]:
    """All settings of a method, those of groups one by one.

    Raises:
        UserError: There is no such method.
    """
    method = get_method(name)
    others: Mapping[str, Any] = getattr(method, "training", {})
    listed = []
    for setting in (one for kind in method.setting_classes for one in _settings(kind, "")):
        other = others.get(setting.name, MISSING)
        if isinstance(other, Mapping):  # a group that is set
            listed += [
                Setting(f"{setting.name}.{key}", "number", _shown(of), setting.text) for key, of in other.items()
            ]
        else:
            listed.append(setting if other is MISSING else replace(setting, default=_shown(other)))
    return listed


def acting(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The settings that had a part in an edit, those of groups one by one.

    Args:
        settings: As an edit records them.
        method: What made it. If it is not known here, all settings count that are set.

    Returns:
        Without those that are unset, and without those that the others left without a part.
    """
    idle = get_method(method).idle(settings) if method in installed() else set()
    return _flat({name: value for name, value in settings.items() if name not in idle})


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value}
    return {name: value for name, value in flat.items() if value is not None}


def _settings(kind: type[Any], above: str) -> list[Setting]:
    hints = get_type_hints(kind)
    described = [part for base in reversed(kind.__mro__) for part in parse(base.__doc__ or "").params]
    texts = {part.arg_name: _plain(part.description or "") for part in described}
    listed = []
    for field in fields(kind):
        hint = hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            listed += _settings(hint, f"{above}{field.name}.")
            continue
        text = texts.get(field.name, "")
        if group := group_of(hint):
            listed.append(Setting(above + field.name, "none | group", "none", f"{text} {_of_group(field.name, group)}"))
        else:
            listed.append(Setting(above + field.name, _kind(hint), _shown(default_of(field)), text))
    return listed


def _of_group(name: str, group: type[Any]) -> str:
    """How the settings of a group are given that is left out unless one of them is."""
    given = ", ".join(f"{name}.{field.name} ({_shown(default_of(field))})" for field in fields(group))
    return f"Given by {given}."


def _shown(default: Any) -> str:
    """A default as a user writes it."""
    if default is MISSING:
        return ""
    if isinstance(default, tuple):
        texts = list(map(str, default))
        return json.dumps(texts) if any("," in text for text in texts) else ", ".join(texts)
    return "none" if default is None else str(default)


def _kind(hint: Any) -> str:
    """A type as a user writes its values."""
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(_kind, get_args(hint)))
    if hint == tuple[int, int]:
        return "FIRST:LAST"
    if get_origin(hint) is tuple:
        return f"{_kind(get_args(hint)[0])}, ..."
    return {NoneType: "none", bool: "true | false", int: "integer", float: "number", str: "text"}.get(hint, str(hint))


def _plain(text: str) -> str:
    """Without the marks of the generated reference."""
    return re.sub(r":\w+:|`", "", " ".join(text.split()))
