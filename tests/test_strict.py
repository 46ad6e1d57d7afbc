"""What is written as JSON refuses what it does not know, and stays as it is."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kvw.strict import Strict


class Part(Strict):
    """A part of a record."""

    count: int = 0


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="more"):
        Part.model_validate({"count": 1, "more": 2})


def test_values_stay_as_they_are():
    with pytest.raises(ValidationError, match="frozen"):
        Part(count=1).count = 2
