"""One forget set from several files: what everybody has asked for so far, whatever the order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kvw.data import Example, read_examples
from kvw.data.folders import METADATA, readable
from kvw.data.pictures import SUFFIXES
from kvw.data.reading import AS_IT_IS, Reading
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest, example_digest, source_digest
from kvw.register.chain import read
from kvw.register.requests import requests

FORGET, KEPT = "forget.jsonl", "kept.safetensors"
READ = (*METADATA, "state.json", "dataset_dict.json", *SUFFIXES)
"""How the names of files end that make a folder one of data: a table beside pictures, a saved data set, pictures."""


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
    with readable(path):
        return ForgetFile(path.name, examples, source_digest(path, examples))


def requests_in(folder: Path, register: Path | None = None) -> tuple[list[Path], list[Path]]:
    """The requests in a folder, one for each folder in it.

    A request is ``forget.jsonl`` as ``kvw data build`` leaves it, or ``kept.safetensors`` if the data are gone, or else
    the inner folder itself: pictures that are called what they show, a table beside pictures, a saved data set.

    Args:
        folder: The folder.
        register: A register whose open and done requests these are to be; the folders are called by the pseudonyms.

    Returns:
        Data to read, and what was kept of requests whose data are gone.

    Raises:
        UserError: There is no such folder, it holds no folder, one in it is no request, or its folders are not the
            requests of the register.
    """
    inner = sorted(path for path in _listed(folder) if path.is_dir()) if folder.is_dir() else []
    if not inner:
        raise UserError(
            f"{folder} holds no requests.",
            found="no such folder" if not folder.is_dir() else "no folder in it",
            do="give a folder with one folder for each request",
        )
    if register is not None:
        _check_register(folder, [path.name for path in inner], register)
    data, kept = list[Path](), list[Path]()
    for path in inner:
        forget, gone = path / FORGET, path / KEPT
        if forget.is_file():
            data.append(forget)
        elif gone.is_file():
            kept.append(gone)
        elif any(file.name.lower().endswith(READ) for file in _listed(path)):
            data.append(path)
        else:
            raise UserError(
                f"{path} is no request, as every folder in {folder} must be.",
                found=f"no {FORGET}, no {KEPT}, no pictures and no data set",
                do=f"put {FORGET} into it, or what else it asks to be forgotten; or give another folder",
            )
    return data, kept


def _listed(folder: Path) -> list[Path]:
    with readable(folder):
        return list(folder.iterdir())


def _check_register(folder: Path, names: Sequence[str], register: Path) -> None:
    """Refuse folders that are not those of the open and done requests of a register."""
    entered = requests(read(register))
    wanted = {one.who: one for one in entered if one.outcome not in ("refused", "withdrawn")}
    ended = {one.who: one for one in entered if one.who not in wanted}
    for name in names:
        if name not in wanted:
            why = f"request {ended[name].number} was {ended[name].outcome}" if name in ended else "no entry names it"
            raise UserError(
                f"{folder / name} is no open or done request of the register.",
                found=why,
                do="remove the folder, or call it by the pseudonym of a request: kvw register list",
            )
    if missing := [one for who, one in wanted.items() if who not in names]:
        raise UserError(
            f"Request {missing[0].number} of the register has no folder in {folder}.",
            found=f"{missing[0].who}, {missing[0].outcome or 'open'}",
            do=f"add the folder {missing[0].who} with its data or with what was kept of it, or close the request",
        )


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
