"""What a run is asked to do, and the data it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from kvw.data import Example, read_examples
from kvw.errors import UserError
from kvw.measuring.fingerprint import example_digest
from kvw.measuring.statistics import Statistics
from kvw.methods.registry import get_method
from kvw.models.loading import Checkpoint
from kvw.models.quantised import Quantise

STATISTICS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class EraseRequest:
    """What to erase from which model.

    Args:
        model: The checkpoint to edit.
        forget: File or folder of the forget set.
        retain: File or folder of the retain set, or a statistics file (``.safetensors``) measured on it; None only
            without the retain contrast.
        out: Directory to write; must not hold anything unless ``force``.
        method: Its name, see :data:`kvw.methods.registry.METHODS`.
        settings: Settings of the method; None for its defaults.
        splits: Further files to score before and after, by name.
        evaluate_at_most: Score at most this many examples of each split, drawn with seed 0; 0 scores all.
        max_new_tokens: The longest answer, in tokens.
        save_model: Off: write the edit and the records only, as is always done for methods without weights to write.
        force: Replace what ``out`` holds.
        device: Where to run; None for the accelerator if there is one, ``auto`` for all there are and offloading.
        quantise: Quantise the model while it is loaded; what is written is the checkpoint in its own precision.

    Raises:
        UserError: There is no such method, or the settings are another's.
    """

    model: Checkpoint
    forget: Path
    retain: Path | None
    out: Path
    method: str = "kvw"
    settings: Any = None
    splits: Mapping[str, Path] = field(default_factory=dict)
    evaluate_at_most: int = 200
    max_new_tokens: int = 50
    save_model: bool = True
    force: bool = False
    device: torch.device | str | None = None
    quantise: Quantise | None = None

    def __post_init__(self) -> None:
        kind = get_method(self.method).settings
        if self.settings is None:
            object.__setattr__(self, "settings", kind())
        elif not isinstance(self.settings, kind):
            raise UserError(
                f"These are not the settings of method {self.method}.",
                found=type(self.settings).__name__,
                do=f"give {kind.__name__}, or name the method they are of",
            )

    @property
    def needs_retain(self) -> bool:
        """Whether the method does something with the retain set."""
        return bool(getattr(self.settings, "retain_contrast", True))

    @property
    def writes_model(self) -> bool:
        """Whether a checkpoint is written: it is asked for, and the method changes weights."""
        return self.save_model and not get_method(self.method).hooks_alone

    def inputs(self) -> list[Path]:
        """Everything that the run reads."""
        return [self.model.folder, self.forget, *([self.retain] if self.retain else []), *self.splits.values()]


@dataclass(frozen=True)
class DataSets:
    """The examples of a run.

    Args:
        forget: The forget set.
        retain: The retain set; empty if its statistics were given instead, or without the retain contrast.
        retain_statistics: Given statistics of the retain set.
        scored: The examples to ask before and after, by split.
        files: The file of each split.
        sizes: How many examples each file holds.
    """

    forget: list[Example]
    retain: list[Example]
    retain_statistics: Statistics | None
    scored: dict[str, list[Example]]
    files: dict[str, Path]
    sizes: dict[str, int]

    def shared(self) -> int:
        """How many forget examples are in the retain set too."""
        kept = {example_digest(example) for example in self.retain}
        return sum(example_digest(example) in kept for example in self.forget)


def read_data(request: EraseRequest) -> DataSets:
    """Read all files that a request names.

    Raises:
        UserError: A file cannot be used, the retain set is missing, or two splits have one name.
    """
    files = {"forget": request.forget}
    statistics = None
    if request.needs_retain:
        if request.retain is None:
            other = ", or --no-retain-contrast for the ablation" if request.method == "kvw" else ""
            raise UserError("The retain set is missing.", do=f"add --retain FILE{other}")
        if request.retain.suffix == STATISTICS_SUFFIX:
            if not get_method(request.method).statistics:
                raise UserError(
                    f"Method {request.method} reads the retain examples themselves.",
                    found=request.retain.name,
                    do="give --retain the file of the examples",
                )
            statistics = Statistics.load(request.retain)
        else:
            files["retain"] = request.retain
    for name, path in request.splits.items():
        if name in files:
            raise UserError(f"There are two splits named '{name}'.", do="give the --eval split another name")
        files[name] = path
    examples = {name: read_examples(path) for name, path in files.items()}
    limit = request.evaluate_at_most
    if limit < 0:
        raise UserError("--eval-limit cannot be negative.", found=str(limit), do="0 scores all examples")
    scored = {name: Random(0).sample(read, limit) if 0 < limit < len(read) else read for name, read in examples.items()}
    sizes = {name: len(read) for name, read in examples.items()}
    return DataSets(examples["forget"], examples.get("retain", []), statistics, scored, files, sizes)
