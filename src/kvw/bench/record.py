"""The files of a benchmark run: a manifest, and one record for each model that was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kvw.bench.journal import Journal
from kvw.bench.scores import ItemScore
from kvw.errors import UserError
from kvw.files import write_text

MANIFEST, RECORDS, ITEMS, EDITS = "manifest.json", "records", "items", "edits"


class TaskPart(BaseModel):
    """A task as the tables show it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    task: str
    modality: str
    metric: str
    """The score that stands for the task: the benchmark's own if kvw computes it, else the share of correct items."""
    items: int


class Manifest(BaseModel):
    """What a run is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    recipe: dict[str, Any]
    recipe_digest: str
    benchmark: str
    setting: str
    protocol: str
    """Zero-shot, or how many exemplars from where."""
    forget: int
    """Examples given to the methods."""
    retain: int
    tasks: list[TaskPart]
    folds: dict[str, int]
    """The half (0 or 1) of every subject."""
    unusable: int
    """Entries of the data that could not be used; never silently dropped."""
    not_computed: list[str]
    """Metrics that the benchmark names and kvw does not compute."""
    requests: list[str]
    """Identifiers of the records, in order: vanilla, gold, then every method and setting."""
    versions: dict[str, str]


class ModelRecord(BaseModel):
    """One model that was asked every item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identifier: str
    label: str
    """``vanilla``, ``gold``, or the method."""
    settings: dict[str, Any]
    """Of the method, as far as the recipe states them."""
    model: str
    model_fingerprint: str
    edit_digest: str
    """SHA-256 over the edit's tensors, or of the file of trained weights; empty for vanilla and gold."""
    outcomes: dict[str, dict[str, int]]
    """``split/task``: how many items ended in each of the five ways."""
    seconds: dict[str, float]
    """Wall-clock time of unlearning and of asking; of this process, so not of what an earlier one had done."""


class RunFiles:
    """A run's directory.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> Manifest | None:
        """What the run is about; None if there is no run yet.

        Raises:
            UserError: It is of another version.
        """
        path = self.folder / MANIFEST
        return _read(path, Manifest) if path.is_file() else None

    def write_manifest(self, manifest: Manifest) -> None:
        """Write or replace it."""
        write_text(self.folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    def record(self, identifier: str) -> ModelRecord | None:
        """A finished record, or None."""
        path = self.folder / RECORDS / f"{identifier}.json"
        return _read(path, ModelRecord) if path.is_file() else None

    def write_record(self, record: ModelRecord) -> None:
        """Write a record; that says that all its items are in the journal."""
        write_text(self.folder / RECORDS / f"{record.identifier}.json", record.model_dump_json(indent=2) + "\n")

    def journal(self, identifier: str) -> Journal:
        """The journal of a model's items."""
        return Journal(self.folder / ITEMS / f"{identifier}.jsonl")

    def items(self, identifier: str) -> list[ItemScore]:
        """The items of a finished record."""
        return self.journal(identifier).scores

    def edit_file(self, identifier: str) -> Path:
        """Where a method's edit is kept."""
        return self.folder / EDITS / f"{identifier}.safetensors"

    def trained_folder(self, identifier: str) -> Path:
        """Where the weights or adapters of a method that trains are kept."""
        return self.folder / EDITS / identifier

    def state_file(self, identifier: str) -> Path:
        """Where a training that has not ended keeps its state."""
        return self.folder / EDITS / f"{identifier}.training"


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is no file of this version's benchmark runs.",
            found=str(error).splitlines()[0],
            do="name another --out",
        ) from error
