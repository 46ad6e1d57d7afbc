"""A file that asks for a run (TOML): its options are those of the command."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from string import Template
from typing import Any

from cyclopts import CycloptsError

from kvw.errors import UserError

COMMANDS = ("erase", "audit")
"""Commands that a file can ask for: each puts its output in its place in one step."""


@dataclass(frozen=True)
class RequestFile:
    """What a file asks for.

    Args:
        path: The file.
        words: The command line, without the program.
    """

    path: Path
    words: list[str]


def read_request_file(path: Path) -> RequestFile:
    """Read a file that asks for a run.

    ``command`` names the command. Every other key is an option of it without the dashes. Lists repeat an option, and a
    table is a list of NAME=VALUE. In texts, ``${NAME}`` is an environment variable and ``$$`` a dollar sign.

    Raises:
        UserError: The file is not there, is no TOML, names no command or a variable that is not set, or has a value
            that no option can have.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read.", found=str(error.strerror), do="check the path, and that you may read it"
        ) from error
    except ValueError as error:  # of tomllib and of UTF-8
        raise UserError(f"{path} cannot be read as a request.", found=str(error), do="write it in TOML") from error
    command = content.pop("command", None)
    if command not in COMMANDS:
        raise UserError(
            f"{path} does not say which command to run.",
            found="no command" if command is None else f"command = {command!r}",
            do=f"add the line command = {' or '.join(repr(one) for one in COMMANDS)}",
        )
    return RequestFile(
        path, [command, *(word for name, value in content.items() for word in _words(path, name, value))]
    )


def refused(file: RequestFile, error: CycloptsError) -> UserError:
    """The error for a file whose options are not those of its command."""
    return UserError(f"{file.path} cannot be run.", found=str(error), do=f"see: kvw {file.words[0]} --help")


def given_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a parsed command by name, without those that have their defaults."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if is_dataclass(value) and not isinstance(value, type):
            group = {one.name: getattr(value, one.name) for one in fields(value)}
            changed = [
                one.name for one in fields(value) if is_dataclass(group[one.name]) or group[one.name] != one.default
            ]
            found |= given_options({one: group[one] for one in changed})
        else:
            found[name.rstrip("_")] = value
    return found


def _words(path: Path, name: str, value: Any) -> Iterator[str]:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        yield f"{option}={str(value).lower()}"
    elif isinstance(value, list):
        for one in value:
            yield from _words(path, name, one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield f"{option}={key}={_text(path, name, one)}"
    else:
        yield f"{option}={_text(path, name, value)}"


def _text(path: Path, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if not isinstance(value, str):
        raise UserError(
            f"{path}: {name} has a value that no option can have.",
            found=repr(value),
            do="give text, a number, true or false",
        )
    try:
        return Template(value).substitute(os.environ)
    except KeyError as error:
        raise UserError(
            f"{path}: {name} needs an environment variable that is not set.", found=str(error.args[0]), do="set it"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: {name} has a $ that begins no variable.", found=value, do="write ${NAME}, or $$ for the sign"
        ) from error
