"""Every combination of settings that a recipe lists."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from kvw.errors import UserError

MOST_COMBINATIONS = 10_000
"""Most combinations of the settings of one method; each is a run of its own."""


def every_combination(name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The grid of settings.

    Args:
        name: The method, for messages.
        values: Values by name; a list stands for several values to try.

    Raises:
        UserError: A list is empty, or there are more than ``MOST_COMBINATIONS``.
    """
    tried = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    for key, listed in tried.items():
        if not listed:
            raise UserError(f"Setting {key} of method {name} lists no value.", do="give it one, or leave it out")
    count = math.prod(map(len, tried.values()))
    if count > MOST_COMBINATIONS:
        raise UserError(
            f"The settings of method {name} have too many combinations.",
            found=f"{count:,}, of which every one would be tried; at most {MOST_COMBINATIONS:,}",
            do="list fewer values",
        )
    return [dict(zip(tried, chosen, strict=True)) for chosen in itertools.product(*tried.values())]
