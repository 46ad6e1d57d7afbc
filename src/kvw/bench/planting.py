"""The stage of a benchmark run that makes its models: vanilla learns everything, gold all but the forgotten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kvw.bench.recipe import PlantPart
from kvw.bench.record import PlantingPart, read_file
from kvw.data import Example
from kvw.data.benchmarks import BenchmarkData, Item
from kvw.edits.edit import package_versions
from kvw.evaluation.loaded import Loaded
from kvw.files import write_text
from kvw.measuring.fingerprint import digest, example_digest, examples_digest, weights_digest
from kvw.models.loading import Checkpoint
from kvw.runs.costs import Stopwatch
from kvw.training.planting import finetune, gold
from kvw.training.result import save_model
from kvw.training.settings import identified


@dataclass(frozen=True)
class Planted:
    """A model that was planted.

    Args:
        checkpoint: An ordinary checkpoint folder.
        planting: How it was made.
    """

    checkpoint: Checkpoint
    planting: PlantingPart


def plant(
    part: PlantPart,
    data: BenchmarkData,
    base: Checkpoint,
    folder: Path,
    watch: Stopwatch,
    device: str | None = None,
) -> dict[str, Planted]:
    """Make the vanilla and the gold model, or find them made.

    A model's folder is named after all that it depends on, so several settings of a benchmark share what is the same
    in all of them. Beside it lie its record and, with LoRA, the adapter. Training that was interrupted goes on.

    Args:
        part: Table of the recipe.
        data: What is planted: its training examples.
        base: The model before planting.
        folder: Where models are kept.
        watch: Times the stages.
        device: Where models are trained, see :meth:`kvw.evaluation.loaded.Loaded.load`.

    Returns:
        ``vanilla`` and ``gold``.

    Raises:
        UserError: The base model cannot be loaded, or training cannot go on.
    """
    return {label: _Planting(part, label, data, base, folder).made(watch, device) for label in ("vanilla", "gold")}


class _Planting:
    """One of the two models."""

    def __init__(self, part: PlantPart, label: str, data: BenchmarkData, base: Checkpoint, folder: Path) -> None:
        self.label, self.base, self.training = label, base, part.training
        self.examples = _examples(data.planted if label == "vanilla" else data.gold)
        forgotten = [items for name, items in data.training.items() if name.startswith("forget")]
        self.forgotten = _examples([item for items in forgotten for item in items])
        self.fingerprint = weights_digest(base.folder)
        identity = digest(self.fingerprint, identified(self.training), list(map(example_digest, self.examples)))
        self.folder = folder / f"{label}-{identity[:12]}"

    def made(self, watch: Stopwatch, device: str | None) -> Planted:
        """The model; trained if it is not there yet."""
        record = self._beside(".json")
        if not record.is_file():
            self._make(watch, device)
        return Planted(Checkpoint(self.folder, self.folder.name), read_file(record, PlantingPart))

    def _make(self, watch: Stopwatch, device: str | None) -> None:
        state, title = self._beside(".state.safetensors"), f"planting {self.label}"
        state.parent.mkdir(parents=True, exist_ok=True)
        with watch.stage(title) as progress:
            loaded = Loaded.load(self.base, device)
            model, processor = loaded.model, loaded.processor
            if self.label == "vanilla":
                result = finetune(model, processor, self.examples, self.training, state=state, progress=progress)
            else:
                result = gold(
                    model, processor, self.forgotten, self.examples, self.training, state=state, progress=progress
                )
            save_model(model, processor, self.folder, force=True)
            if result.adapter:
                result.save(self._beside("-adapter"), force=True)
        planting = PlantingPart(
            base=str(self.base),
            base_fingerprint=self.fingerprint,
            settings=json.loads(json.dumps(asdict(self.training))),
            examples=len(self.examples),
            examples_digest=examples_digest(self.examples),
            losses=[step.losses["retain"] for step in result.history],
            stopped=result.stopped,
            seconds=watch.seconds[title],
            versions=package_versions(),
        )
        write_text(self._beside(".json"), planting.model_dump_json(indent=2) + "\n")
        state.unlink(missing_ok=True)

    def _beside(self, ending: str) -> Path:
        return self.folder.with_name(self.folder.name + ending)


def _examples(items: Sequence[Item]) -> list[Example]:
    """In an order that depends on nothing but the content: the parts of a benchmark are cut differently in each
    setting."""
    return sorted((item.example() for item in items), key=example_digest)
