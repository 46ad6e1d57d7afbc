"""The files of a benchmark run: a manifest, and one record for each model that was asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from kvw.bench.folders import MANIFEST
from kvw.bench.scores import ItemScore
from kvw.errors import UserError
from kvw.files import write_text
from kvw.strict import Strict

if TYPE_CHECKING:
    from kvw.evaluation.journal import Journal

RECORDS, ITEMS, ANSWERS, EDITS = "records", "items", "answers", "edits"
MODELS = "models"
"""Planted models, beside the directories of several settings."""


Part = TypeVar("Part", bound=BaseModel)


class TaskPart(Strict):
    """A task as the tables show it."""

    split: str
    task: str
    modality: str
    metric: str
    """The score that stands for the task: the benchmark's own if kvw computes it, else the share of correct items."""
    items: int
    named: tuple[str, ...] = ()
    """All metrics that the benchmark names for it."""


class Manifest(Strict):
    """What a run is about."""

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
    models: dict[str, str]
    """SHA-256 over the weight files of each model that the recipe names, by role."""
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


class PlantingPart(Strict):
    """How a model was planted."""

    base: str
    """The model before planting."""
    base_fingerprint: str
    settings: dict[str, Any]
    """Settings of the training."""
    examples: int
    examples_digest: str
    """SHA-256 over questions, answers and images, in whatever order."""
    losses: list[float]
    """Mean negative log-likelihood per answer token, in nats, of each optimiser step."""
    stopped: str
    """Which rule ended the training early; empty if none did."""
    seconds: float
    """Wall-clock time; of the process that ended it, so not of what an earlier one had done."""
    versions: dict[str, str]


class ModelRecord(Strict):
    """One model that was asked every item."""

    identifier: str
    label: str
    """``vanilla``, ``gold``, or the method."""
    settings: dict[str, Any]
    """Settings of the method, as far as the recipe states them."""
    model: str
    model_fingerprint: str
    edit_digest: str
    """SHA-256 over the edit's tensors, or of the file of trained weights; empty for vanilla and gold."""
    planting: PlantingPart | None = None
    """How this run has planted it; None for edits, which are of the vanilla model, and for models that were given."""
    only_screened: bool = False
    """Whether it was asked only what settings are chosen by."""
    outcomes: dict[str, dict[str, int]]
    """``split/task``: how many items ended in each of the five ways."""
    seconds: dict[str, float]
    """Wall-clock time of unlearning and of asking; of this process, so not of what an earlier one had done."""


class Files(Generic[Part]):
    """A directory with a record of each model that was asked.

    Args:
        folder: Where it is.
        kind: The class of the records.
    """

    def __init__(self, folder: Path, kind: type[Part]) -> None:
        self.folder, self._kind = folder, kind

    def record(self, identifier: str) -> Part | None:
        """A finished record, or None.

        Raises:
            UserError: Another version has written it.
        """
        path = self.folder / RECORDS / f"{identifier}.json"
        return read_file(path, self._kind) if path.is_file() else None

    def write_record(self, identifier: str, record: Part) -> None:
        """Write a record; what belongs to it has been written before."""
        write_text(self.folder / RECORDS / f"{identifier}.json", record.model_dump_json(indent=2) + "\n")

    def journal(self, identifier: str) -> Journal:
        """What a model that is being asked has said so far; to be discarded when its items have been written."""
        from kvw.evaluation.journal import Journal  # takes seconds to import, and tables are made without

        return Journal(None, self.folder / ANSWERS / f"{identifier}.jsonl")

    def items(self, identifier: str) -> list[ItemScore] | None:
        """The items of a model; None if it has not been asked them all.

        Raises:
            UserError: Another version has written them.
        """
        path = self.folder / ITEMS / f"{identifier}.jsonl"
        if not path.is_file():
            return None
        with path.open("rb") as lines:
            return [_parsed(path, line, ItemScore) for line in lines]

    def write_items(self, identifier: str, scores: Iterable[ItemScore]) -> None:
        """Write all items of a model, a line of JSON for each."""
        write_text(
            self.folder / ITEMS / f"{identifier}.jsonl", "".join(f"{score.model_dump_json()}\n" for score in scores)
        )


class RunFiles(Files[ModelRecord]):
    """A run's directory.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ModelRecord)

    def manifest(self) -> Manifest | None:
        """What the run is about; None if there is no run yet.

        Raises:
            UserError: Another version has written it.
        """
        path = self.folder / MANIFEST
        return read_file(path, Manifest) if path.is_file() else None

    def write_manifest(self, manifest: Manifest) -> None:
        """Write or replace it."""
        write_text(self.folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    def edit_file(self, identifier: str) -> Path:
        """Where a method's edit is kept."""
        return self.folder / EDITS / f"{identifier}.safetensors"

    def trained_folder(self, identifier: str) -> Path:
        """Where the weights or adapters of a method that trains are kept."""
        return self.folder / EDITS / identifier

    def state_file(self, identifier: str) -> Path:
        """Where a training that has not ended keeps its state."""
        return self.folder / EDITS / f"{identifier}.training"


def read_file(path: Path, kind: type[Part]) -> Part:
    """Read a file of one of the kinds of this module.

    Raises:
        UserError: Another version has written it.
    """
    return _parsed(path, path.read_bytes(), kind)


def _parsed(path: Path, content: bytes, kind: type[Part]) -> Part:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise UserError(
            f"{path} is no file of this version's benchmark runs.",
            found=str(error).splitlines()[0],
            do="name another --out",
        ) from error
