"""What a run was asked and what it reads, as digests by which the same request is known again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kvw.data import read_examples
from kvw.data.reading import Reading
from kvw.errors import UserError
from kvw.folders import NO_FILE, folder_digests
from kvw.measuring.fingerprint import digest, source_digest, weights_digest
from kvw.models.checkpoint import find_checkpoint
from kvw.models.weight_files import weight_files

MODELS = ("model", "original", "gold")
"""Options that name a model."""
NOT_ASKED = ("out", "force", "json", "register")
"""Options that say where results go. A register says who asked, and it grows with every entry."""
READ_WITH_WEIGHTS = (".json", ".jinja", ".model", ".txt")
"""How the other files of a checkpoint end that decide what it says."""


def request_digests(options: Mapping[str, Any], reading: Reading) -> dict[str, str]:
    """A digest for each option: of what it says, and for files and models of what they hold.

    Args:
        options: The options that were given, by name.
        reading: How the data files are read; the pictures that they name count.

    Raises:
        UserError: A model is not there.
        OSError: A file cannot be read.
    """
    return {
        name: _model_digest(value) if name in MODELS else digest(_content(value, reading))
        for name, value in options.items()
        if name not in NOT_ASKED
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of what is not what it was."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _model_digest(model: str) -> str:
    folder = find_checkpoint(model).folder
    weights = {path.name for path in weight_files(folder)}
    others = {
        name: found
        for name, found in folder_digests(folder, without=weights).items()
        if name.endswith(READ_WITH_WEIGHTS) and "/" not in name
    }
    return digest(weights_digest(folder), others)


def _content(value: Any, reading: Reading) -> Any:
    if isinstance(value, (list, tuple)):
        return [_content(one, reading) for one in value]
    if isinstance(value, Path):
        return _files_digest(value, reading)
    if isinstance(value, str):
        name, _, path = value.partition("=")  # --eval NAME=FILE
        if path and Path(path).is_file():
            return [name, _files_digest(Path(path), reading)]
        path, _, name = value.rpartition(":")  # --method FILE.py:METHOD
        if path and Path(path).is_file():
            return [name, _files_digest(Path(path), reading)]
    return value


def _files_digest(path: Path, reading: Reading) -> str:
    """Of a file or folder, and of the pictures that data in it name."""
    if not path.exists():
        return NO_FILE
    files = path.rglob("*") if path.is_dir() else [path]
    return digest(
        source_digest(path), sorted(source_digest(picture) for one in files for picture in _pictures(one, reading))
    )


def _pictures(path: Path, reading: Reading) -> Iterator[Path]:
    try:
        examples = read_examples(path, reading) if path.is_file() else []
    except UserError:  # no data, or data that the run will refuse itself
        return
    for example in examples:
        yield from (image for image in example.images if isinstance(image, Path) and image.is_file())
