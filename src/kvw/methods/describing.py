"""What settings a method has, taken from its dataclass; imports nothing heavy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse

from kvw.methods.reading import default_of
from kvw.methods.registry import get_method
from kvw.methods.subspace.settings import GATE_SETTINGS, READ


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
    return [setting for kind in get_method(name).setting_classes for setting in _settings(kind, "")]


def acting(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The settings that had a part in an edit, those of groups one by one.

    Left out is what is unset, and what other settings had left without a part, such as ``gamma`` under a gate that goes
    by ``mu``.

    Args:
        settings: As an edit records them, of any method.
        above: What comes before the names.
    """
    idle = _idle(settings)
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= acting(value, f"{above}{name}.")
        elif value is not None and name not in idle:
            found[above + name] = value
    return found


def _idle(settings: Mapping[str, Any]) -> set[str]:
    idle: set[str] = set()
    for gate, read in READ.items():
        if settings.get("gate") == gate:
            idle |= GATE_SETTINGS - set(read)
    if settings.get("threshold") is not None and "gate" in settings:
        idle.add("quantile")
    if settings.get("energy") is not None:
        idle.add("ratio")
    if settings.get("epsilon") == 0:
        idle |= {"step", "steps", "random_start", "target"}
    if settings.get("schedule") == "one-shot":
        idle.add("seed")
    return idle


def _settings(kind: type[Any], above: str) -> list[Setting]:
    hints = get_type_hints(kind)
    described = [part for base in kind.__mro__ for part in parse(base.__doc__ or "").params]
    texts = {part.arg_name: _plain(part.description or "") for part in described}
    found = []
    for field in fields(kind):
        hint = hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            found += _settings(hint, f"{above}{field.name}.")
            continue
        text = texts.get(field.name, "")
        if group := next((kind for kind in get_args(hint) if isinstance(kind, type) and is_dataclass(kind)), None):
            found.append(Setting(above + field.name, "none | group", "none", f"{text} {_of_group(field.name, group)}"))
        else:
            found.append(Setting(above + field.name, _kind(hint), _shown(default_of(field)), text))
    return found


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
