"""What statistics and edits depend on, as digests that can be compared part by part."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kvw.cache import cache_directory
from kvw.checked import read_checked, write_checked
from kvw.data.example import Example
from kvw.data.images import image_digest
from kvw.data.templates import chat_template
from kvw.errors import UserError
from kvw.files import file_digest
from kvw.folders import folder_digests
from kvw.measuring.source_state import file_state
from kvw.models.weight_files import weight_files

logger = logging.getLogger(__name__)


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a checkpoint's weight files.

    Digests of single files are remembered in the cache directory, so a large checkpoint is read once.

    Raises:
        UserError: The folder lacks weight files.
    """
    return combined_digest(weight_digests(folder))


def weight_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file of a checkpoint by its name, remembered as by :func:`weights_digest`.

    Raises:
        UserError: The folder lacks weight files, or one was changed while it was read.
    """
    files = weight_files(folder)
    with ThreadPoolExecutor() as pool:
        return dict(zip((path.name for path in files), pool.map(_file_digest, files), strict=True))


def combined_digest(digests: Mapping[str, str]) -> str:
    """What :func:`weights_digest` gives for weight files of these names and SHA-256 digests, in the files' order."""
    return digest(list(digests), list(digests.values()))


def remembered_digest(path: Path) -> str | None:
    """SHA-256 of a weight file if an earlier run has left it in the cache directory and the file is still the same."""
    remembered = read_checked(_memory(path))
    return remembered.decode("ascii") if remembered is not None else None


def remember_digest(path: Path, found: str) -> None:
    """Keep the SHA-256 of a weight file for later runs; the file must be what it was when that was computed."""
    _remember(_memory(path), found)


def _remember(memory: Path, found: str) -> None:
    try:
        write_checked(memory, found.encode("ascii"))
    except UserError as error:
        logger.warning("the digest of a weight file could not be kept for the next run: %s", error)


def examples_digest(examples: Iterable[Example]) -> str:
    """SHA-256 over questions, answers and image bytes; the order of the examples does not matter."""
    return digest(sorted(example_digest(example) for example in examples))


def example_digest(example: Example) -> str:
    """SHA-256 over everything of one example that a model is shown."""
    shown: list[object] = [example.question, example.answer, [image_digest(image) for image in example.images]]
    if example.earlier or example.plain:  # others keep the digests that they had before there were such
        shown += [[[turn.role, turn.text, turn.images] for turn in example.earlier], example.plain]
    return digest(*shown)


def source_digest(source: Path, examples: Iterable[Example] = ()) -> str:
    """SHA-256 over all bytes of a data file or folder and of the pictures that its examples name, whatever their names.

    Args:
        source: The file, or the folder with all that lies in it.
        examples: What it holds.

    Raises:
        OSError: A file cannot be read. A picture that cannot counts as such.
    """
    files = folder_digests(source).values() if source.is_dir() else [file_digest(source)]
    pictures = {image for example in examples for image in example.images if isinstance(image, Path)}
    return digest(sorted(files), sorted(_picture_digest(path) for path in pictures))


def processor_parts(processor: Any) -> dict[str, str]:
    """Digests of what a processor does to text and pictures: prompt template, tokenizer, image settings."""
    image_processor = getattr(processor, "image_processor", None)
    tokenizer = getattr(processor, "tokenizer", processor)
    return {
        "prompt template": digest(chat_template(processor)),
        "tokenizer": digest(tokenizer.backend_tokenizer.to_str()),
        "image settings (pixel limits)": digest(image_processor.to_dict() if image_processor else None),
    }


def digest(*parts: Any) -> str:
    """SHA-256 of values that JSON can hold (others by their text), as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("utf-8")).hexdigest()


def subject_digest(subject: str, salt: str) -> str:
    """Digest by which a subject is known again where its name is not kept.

    Args:
        subject: As :attr:`kvw.data.Example.subject_key` has it.
        salt: A random text, so that digests of the same subject in two files are different.
    """
    return digest(salt, "subject", subject)


def _picture_digest(path: Path) -> str:
    try:
        return image_digest(path)
    except UserError:
        return "unreadable"


def _file_digest(path: Path) -> str:
    known = remembered_digest(path)
    if known is None:
        memory = _memory(path)
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        if _memory(path) != memory:
            raise UserError(f"{path.name} was changed while it was read.", do="run again when it is at rest")
        _remember(memory, known)
    return known


def _memory(path: Path) -> Path:
    real = path.resolve()
    return cache_directory() / "digests" / digest(str(real), file_state(real))
