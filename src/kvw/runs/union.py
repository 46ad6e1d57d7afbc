"""One forget set from several files: what everybody has asked for so far, whatever the order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kvw.data import Example, read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest, example_digest, source_digest

FORGET, KEPT = "forget.jsonl", "kept.safetensors"


@dataclass(frozen=True)
class ForgetFile:
    """A file of the forget set.

    Args:
        name: Its name, without the folder.
        examples: What it holds.
        source: SHA-256 over its bytes, see :func:`kvw.measuring.fingerprint.source_digest`.
    """

    name: str
    examples: list[Example]
    source: str = ""

    @cached_property
    def keys(self) -> list[tuple[str, str | None]]:
        """What makes each example the one that it is: question, answer and images by their digest, and the subject."""
        return [(example_digest(example), example.subject_key) for example in self.examples]

    @property
    def order(self) -> str:
        """The key by which files are sorted: a digest of what they hold, subjects as they are written."""
        return digest([(one, example.subject) for (one, _), example in zip(self.keys, self.examples, strict=True)])


def read_forget_files(paths: Sequence[Path], reading: Reading = AS_IT_IS) -> list[ForgetFile]:
    """Read the files of a forget set; several come in an order that follows from what they hold.

    Raises:
        UserError: There is no file, or one of them cannot be used.
    """
    if not paths:
        raise UserError("The forget set is missing.", do="add --forget FILE, or --requests FOLDER")
    files = [_read(path, reading) for path in paths]
    return sorted(files, key=lambda file: file.order) if len(files) > 1 else files


def _read(path: Path, reading: Reading) -> ForgetFile:
    examples = read_examples(path, reading)
    return ForgetFile(path.name, examples, source_digest(path, examples))


def requests_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The requests in a folder, one for each folder in it.

    A request is ``forget.jsonl`` as ``kvw data build`` leaves it, or ``kept.safetensors`` if the data are gone, or else
    the inner folder itself: pictures that are called what they show, a table beside pictures, a saved data set.

    Returns:
        Data to read, and what was kept of requests whose data are gone.

    Raises:
        UserError: There is no such folder, or it holds no folder.
    """
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not inner:
        raise UserError(
            f"{folder} holds no requests.",
            found="no such folder" if not folder.is_dir() else "no folder in it",
            do="give a folder with one folder for each request",
        )
    data, kept = list[Path](), list[Path]()
    for path in inner:
        forget, gone = path / FORGET, path / KEPT
        if forget.is_file() or not gone.is_file():
            data.append(forget if forget.is_file() else path)
        else:
            kept.append(gone)
    return data, kept


def joined(files: Sequence[ForgetFile]) -> tuple[list[Example], int]:
    """The union of files: what an earlier file holds too is not taken again.

    Within one file everything counts as often as it is there, as ever.

    Returns:
        The examples, and how many were not taken again.
    """
    union: list[Example] = []
    known: set[tuple[str, str | None]] = set()
    for file in files:
        union += [example for example, key in zip(file.examples, file.keys, strict=True) if key not in known]
        known.update(file.keys)
    return union, sum(len(file.examples) for file in files) - len(union)
