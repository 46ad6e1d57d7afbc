"""A command line as it goes into a record: nothing of it says where on this machine anything lies."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any


def spelled(verb: str, model: str, files: Mapping[str, Path | list[Path] | None], **options: Any) -> str:
    """The command line of a verb with all that differs from the defaults.

    Args:
        verb: Its name.
        model: What the model is called in records.
        files: Files and folders by the name of their option; each becomes that name in capitals.
        options: Groups of options (dataclasses) and switches by name; what is false, empty or a default is left out.
    """
    words = ["kvw", verb, model]
    for name, given in files.items():
        for _ in given if isinstance(given, list) else [given] if given is not None else []:
            words += [f"--{name}", name.upper()]
    for name, value in options.items():
        if hasattr(value, "__dataclass_fields__"):
            for field in fields(value):
                if getattr(value, field.name) != field.default:
                    words += _words(field.name, getattr(value, field.name))
        elif value not in (None, False, ""):
            words += _words(name, value)
    return shlex.join(words)


def _words(name: str, value: Any) -> list[str]:
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
