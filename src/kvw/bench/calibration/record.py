"""The files of a calibration, in a folder of their own beside the run's records."""

from __future__ import annotations

from pathlib import Path

from kvw.bench.record import RECORDS, read_file
from kvw.files import write_text
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


class CalibrationFiles:
    """The measurements on a run; each is written when it is complete.

    Args:
        folder: The run's directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER / RECORDS

    def read(self, identifier: str) -> Measurement | None:
        """One measurement, or None.

        Raises:
            UserError: Another version has written it.
        """
        path = self.folder / f"{identifier}.json"
        return read_file(path, Measurement) if path.is_file() else None

    def write(self, identifier: str, found: Measurement) -> None:
        """Write one measurement."""
        write_text(self.folder / f"{identifier}.json", found.model_dump_json() + "\n")
