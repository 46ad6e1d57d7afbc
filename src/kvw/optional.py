"""Packages that only some of the work needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kvw.errors import UserError


def optional(module: str, *, use: str, extra: str = "", package: str = "", instead: str = "") -> Any:
    """Import a module of an extra when it is first needed.

    Args:
        module: Its full name, for example ``scipy.stats``.
        use: What needs it, with the verb: the beginning of the message.
        extra: The extra of kvw that installs its package.
        package: What pip installs where there is no such extra.
        instead: What else can be done.

    Raises:
        UserError: The package is not installed.
    """
    name, installed = module.partition(".")[0], f'"kvw[{extra}]"' if extra else package
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(
            f"{use} the package {name}.",
            found="it is not installed",
            do=f"install it with: pip install {installed}{instead}",
        ) from error
