"""A finished benchmark run that is asked further questions: its data, its models, and what its methods have made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kvw.bench.asking import questions
from kvw.bench.changes import Change, EditChange, TrainedChange
from kvw.bench.recipe import Recipe
from kvw.bench.record import MODELS, Manifest, ModelRecord, RunFiles
from kvw.bench.run import load_benchmark
from kvw.data.benchmarks import Protocol
from kvw.edits.edit import read_edit
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.models.loading import Checkpoint
from kvw.runs.costs import Stopwatch

Find = Callable[[str], Checkpoint]
"""Finds a model by the name that the recipe has for it."""


class FinishedRun:
    """One run.

    Args:
        folder: Its directory, of one setting.
        manifest: What it is about.
        watch: Told of stages.
        device: Where models run, see :meth:`kvw.evaluation.loaded.Loaded.load`.

    Attributes:
        files: Its files.
        recipe: Its recipe.
        data: Its benchmark.
        asked: Every question that it has asked, in order.
        records: Every model that it has asked.

    Raises:
        UserError: The benchmark cannot be loaded any more.
    """

    def __init__(self, folder: Path, manifest: Manifest, watch: Stopwatch, device: str | None = None) -> None:
        self.files, self.watch, self.device = RunFiles(folder), watch, device
        self.recipe = Recipe.model_validate(manifest.recipe)
        with watch.stage("reading the benchmark"):
            self.data = load_benchmark(self.recipe.benchmark)
            protocol = Protocol(shots=self.recipe.evaluation.shots, seed=self.recipe.benchmark.only_seed)
            self.asked = questions(self.data, protocol, self.recipe.evaluation)
        self.records = [found for one in manifest.requests if (found := self.files.record(one)) is not None]

    def load(self, label: str, find: Find) -> Loaded:
        """Load vanilla or gold.

        Raises:
            UserError: The model is not the one that the run asked.
        """
        record = next(record for record in self.records if record.label == label)
        if record.planting is None:
            checkpoint = find(self.recipe.models_by_role[label])
        else:
            # Of a recipe with several settings or seeds the models are beside the directories of these.
            places = [place / MODELS for place in (self.files.folder, *self.files.folder.absolute().parents[:2])]
            place = next((one for one in places if (one / record.model).is_dir()), places[0])
            checkpoint = Checkpoint(place / record.model, record.model)
        with self.watch.stage(f"loading {label}"):
            loaded = Loaded.load(checkpoint, self.device)
        if loaded.fingerprint != record.model_fingerprint:
            raise UserError(
                f"{checkpoint} is not the model that the run has asked.",
                found=f"weights {loaded.fingerprint[:12]}, in the run {record.model_fingerprint[:12]}",
                do="make the run again in another --out",
            )
        return loaded

    def change(self, record: ModelRecord) -> Change | None:
        """What a method has made of vanilla; None for vanilla and gold."""
        if record.label in ("vanilla", "gold"):
            return None
        trained = self.files.trained_folder(record.identifier)
        return (
            TrainedChange(trained)
            if trained.is_dir()
            else EditChange(read_edit(self.files.edit_file(record.identifier)))
        )
