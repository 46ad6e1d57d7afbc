"""The methods that a recipe can name: those that make edits, and those that train; importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvw.bench import trained_settings
from kvw.data.benchmarks.items import known
from kvw.methods.gradient.settings import SETTINGS
from kvw.methods.registry import METHODS, get_method

TRAINED = tuple(SETTINGS)
"""The methods that change weights."""


def combinations(name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the settings of a recipe; a list stands for several values to try.

    Args:
        name: The method.
        values: Settings by name.

    Returns:
        At least one set of settings, in the order in which the recipe lists them.

    Raises:
        UserError: There is no such method or setting, or a value makes no sense.
    """
    known(name, dict.fromkeys((*METHODS, *TRAINED)), "method", "kvw")
    return trained_settings.combinations(name, values) if name in TRAINED else get_method(name).combinations(values)


def build_settings(name: str, values: Mapping[str, Any]) -> Any:
    """The settings of a method from one of the :func:`combinations`.

    Raises:
        UserError: A value makes no sense.
    """
    return trained_settings.build_settings(name, values) if name in TRAINED else get_method(name).read(values)
