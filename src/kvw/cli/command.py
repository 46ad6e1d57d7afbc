"""A command line as it goes into a record: nothing of it says where on this machine anything lies."""

from __future__ import annotations

import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


def spelled(verb: str, model: str, options: Any) -> str:
    """The command line of a verb with all that differs from the defaults.

    Args:
        verb: Its name.
        model: What the model is called in records.
        options: A group of options (a dataclass), which may hold others. A file becomes the name of its option in
            capitals.
    """
    return shlex.join(["kvw", verb, model, *_given(options)])


def _given(options: Any) -> list[str]:
    values = [(field, getattr(options, field.name)) for field in fields(options)]
    return [word for field, value in values if value != field.default for word in _words(field.name, value)]


def _words(name: str, value: Any) -> list[str]:
    if is_dataclass(value):
        return _given(value)
    option = f"--{name.rstrip('_').replace('_', '-')}"
    if value is True:
        return [option]
    if value is False:
        return [f"--no-{option[2:]}"]
    if isinstance(value, list):
        return [word for one in value for word in _words(name, one)]
    if isinstance(value, Path):
        return [option, option[2:].upper()]
    if name == "eval":
        value = f"{value.partition('=')[0]}=FILE"
    elif name == "method":
        value = value.rpartition("/")[2]  # the place of a method of one's own
    return [option, str(value)]
