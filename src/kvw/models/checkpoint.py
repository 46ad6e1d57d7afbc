"""Which checkpoint is meant, and where it is on this machine; importing this loads nothing heavy."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.models.named import named_folder

HUB_ID = re.compile(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
"""What may be one. The hub's library is asked about the rest of its rules; a path is told without importing it."""
NOT_NEEDED = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "original/*"]
"""Hub files that duplicate the safetensors weights; pickled weights are never read."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine and what to call it in records.

    Args:
        folder: Where its files are.
        name: Hub id, or the folder's own name; never a path of this machine.
        revision: Commit of the hub repository, empty for a local folder.
        value_matrices: Where they are in a model of an unknown family, see
            :func:`kvw.models.detection.confirm_value_matrices`; empty if kvw knows.
        template_options: Names and values of variables of its chat template, see
            :func:`kvw.data.templates.with_options`.
    """

    folder: Path
    name: str
    revision: str = ""
    value_matrices: str = ""
    template_options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def checkpoint_of(model: Checkpoint | str | Path) -> Checkpoint:
    """A checkpoint as it is, and the one that a name means, see :func:`find_checkpoint`."""
    return model if isinstance(model, Checkpoint) else find_checkpoint(model)


def find_checkpoint(model: str | Path, *, download: bool = True) -> Checkpoint:
    """Find a checkpoint by name, by folder, or by hub id with an optional revision (``owner/name@revision``).

    Args:
        model: ``toy:vanilla``, ``toy:gold`` and ``smollm2:135m`` are names of kvw's own.
        download: Whether a repository of the hub is fetched; else only what was fetched before is found.

    Raises:
        UserError: It is neither a name, nor a folder with a ``config.json``, nor a hub repository that can be reached;
            or it is a model that has not been made on this machine yet.
    """
    model = str(model)
    named = named_folder(model)
    if named is not None:
        return Checkpoint(named, model)
    folder = Path(model)
    if os.path.isdir(model):  # noqa: PTH112 (Path.is_dir fails on names that are too long)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{model} is not a checkpoint.",
                found="a folder without config.json",
                do="name a folder written by save_pretrained",
            )
        return Checkpoint(folder, folder.resolve().name)
    name, _, revision = model.partition("@")
    if not HUB_ID.fullmatch(name):
        raise UserError(
            f"There is no model '{model}'.",
            found="no such folder, and not the id of a model on the hub",
            do="check the path, or give a hub id, optionally with a revision: owner/name@revision",
        )

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, revision=revision or None, ignore_patterns=NOT_NEEDED, local_files_only=not download
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"There is no model '{model}'.",
            found=f"no such folder, and on the hub: {first_line(error)}",
            do="give a local folder or a hub id, optionally with a revision: owner/name@revision",
        ) from error
    snapshot = Path(found)
    return Checkpoint(snapshot, name, snapshot.name)


def first_line(error: Exception) -> str:
    """The first line of what a library says, at most 300 characters; the name of the error if it says nothing."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, KeyError):  # which says no more than the key
        said = f"KeyError: {said}"
    return said if len(said) <= 300 else f"{said[:300]}..."
