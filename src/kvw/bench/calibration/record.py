"""The files of a calibration, in a folder of their own beside the run's records."""

from __future__ import annotations

from kvw.strict import Strict

FOLDER = "calibration"


class Strength(Strict):
    """The extraction strength of one item."""

    split: str
    task: str
    subject: str
    value: float
    """From 0 to 1; 0 for an item that cannot be read."""


class Measurement(Strict):
    """Extraction strengths of one model at one share of its change."""

    measured: str
    """Identifier of the run's record of the model."""
    label: str
    share: float
    """0 is the original, 1 what the method has made."""
    items: list[Strength]
    versions: dict[str, str]
