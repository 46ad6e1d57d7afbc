"""Recipes as TOML files, within bounds: what a person writes by hand, and nothing that only a fuzzer would."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from kvw.errors import UserError
from kvw.known import known
from kvw.strict import Strict

MOST_BYTES = 2**20
INCLUDE = "include"
DEEPEST = 16
"""Levels of tables and arrays inside each other."""
LARGEST_INTEGER = 2**63 - 1
"""What TOML promises to carry."""


Recipe = TypeVar("Recipe", bound=Strict)


def read_part(path: Path, kind: type[Recipe], examples: str) -> Recipe:
    """Read a recipe with what it includes, and check its keys and the types of its values.

    Args:
        path: The file.
        kind: What it holds.
        examples: Where there are others, for the message.

    Raises:
        UserError: There is no such file, it is no TOML, or something in it is unknown; the message names the closest.
    """
    if not path.is_file():
        raise UserError(f"There is no recipe {path}.", do=f"see {examples} for examples")
    values = read_included(path)
    _check_keys(values, kind, path.name)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path.name}: {place} cannot be used.",
            found=first["msg"],
            do="correct it; docs/bench.md lists what a recipe holds",
        ) from error


def read_included(path: Path) -> dict[str, Any]:
    """A recipe with the files of its key ``include``, whose paths are as seen from its own folder.

    Tables are put together key by key, and the recipe's own values win; of several files the later one. Lists of
    tables (methods) follow each other, the recipe's own first. What is included includes nothing itself.

    Raises:
        UserError: See :func:`read_toml`; or ``include`` is no list of files, or one of them is not there.
    """
    values = read_toml(path)
    names = values.pop(INCLUDE, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path.name}: include is no list of files.", found=repr(names)[:80], do='write ["part.toml"]')
    together: dict[str, Any] = {}
    for name in names:
        part = path.parent / name
        if not part.is_file():
            raise UserError(f"{path.name} includes a file that is not there.", found=str(part), do="correct its path")
        included = read_toml(part)
        if INCLUDE in included:
            raise UserError(f"{part} is included and includes others.", do="include them in the recipe itself")
        together = _merged(together, included, first_wins=False)
    return _merged(values, together, first_wins=True)


def _merged(first: dict[str, Any], second: dict[str, Any], *, first_wins: bool) -> dict[str, Any]:
    """Both tables, key by key: of tables and lists of tables both parts, of other values one."""
    values = {**second, **first} if first_wins else {**first, **second}
    for key in first.keys() & second.keys():
        one, two = first[key], second[key]
        if isinstance(one, dict) and isinstance(two, dict):
            values[key] = _merged(one, two, first_wins=first_wins)
        elif all(isinstance(value, list) and value and isinstance(value[0], dict) for value in (one, two)):
            values[key] = [*one, *two]
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        UserError: It cannot be read or is no TOML, is larger than ``MOST_BYTES``, nested deeper than ``DEEPEST``,
            or holds an integer beyond 64 bits.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path} is too large.", found=f"more than {MOST_BYTES} bytes", do="shorten it")
        values = tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise _too_deep(path) from None
    except (OSError, ValueError) as error:  # tomllib's and Unicode's errors, and integers of thousands of digits
        raise UserError(
            f"{path} is not a TOML file.", found=str(error)[:200], do="correct the line that is named"
        ) from error
    level: list[Any] = [values]
    for _ in range(DEEPEST + 1):
        for value in level:
            if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
                raise UserError(f"{path} holds an integer beyond 64 bits.", do="write a smaller one")
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return values
    raise _too_deep(path)


def _check_keys(values: dict[str, Any], part: type[BaseModel], where: str) -> None:
    """Refuse keys that a part does not have, with the closest one that it has."""
    for key, value in values.items():
        field = part.model_fields[known(key, part.model_fields, "key", where)]
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        for kind in kinds:
            if isinstance(value, dict) and issubclass(kind, Strict):
                _check_keys(value, kind, f"{where} [{key}]")


def _inside(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep(path: Path) -> UserError:
    return UserError(f"{path} is nested more than {DEEPEST} levels deep.", do="write it flat")
