"""Tests of many cases of one kind: `make test` runs some of them, and `make test-slow` the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def one_in(count: int, values: Iterable[Any]) -> list[Any]:
    """Cases of which one in so many is not marked as slow, the first among them."""
    return [
        value
        if place % count == 0
        else pytest.param(*value if isinstance(value, tuple) else (value,), marks=pytest.mark.slow)
        for place, value in enumerate(values)
    ]
