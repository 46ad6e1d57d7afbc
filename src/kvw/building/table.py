"""Who or what a request is about: a table of names with facts, and photos."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvw.data.columns import named, picture_column
from kvw.data.folders import EXTENSIONS, NUMBER, READERS, readable
from kvw.data.images import FORMATS, image_faults
from kvw.data.pictures import SUFFIXES
from kvw.data.tables import Row
from kvw.errors import UserError
from kvw.folding import collapsed, folded
from kvw.plural import counted
from kvw.printable import shortened

NOT_FACTS = {"id", "subject"}


@dataclass(frozen=True)
class Subject:
    """A person or a thing.

    Args:
        name: What it is called.
        facts: What is known of it, by the name of the column.
        photos: Pictures of it.
    """

    name: str
    facts: dict[str, str] = field(default_factory=dict)
    photos: tuple[Path, ...] = ()


def read_table(path: Path, name_column: str = "name") -> list[Subject]:
    """Read subjects, one a row: a column with the name, and one for each fact. Empty cells are no facts.

    Args:
        path: A table of any kind that :func:`kvw.data.read_examples` reads.
        name_column: Which column names the subject.

    Raises:
        UserError: The table cannot be read, a row has no name, two rows have one, or a column seems to hold pictures.
    """
    subjects: dict[str, Subject] = {}
    for number, row in _rows(path):
        where = f"{path.name}:{number}"
        subject = _subject(named(row, where), where, name_column)
        if collapsed(subject.name) in subjects:
            raise UserError(f"{where}: this name is there twice.", found=subject.name, do="keep one row of each name")
        subjects[collapsed(subject.name)] = subject
    if not subjects:
        raise UserError("The table names nobody.", found=str(path), do="check that it is the right file")
    return list(subjects.values())


def facts_of(subjects: Sequence[Subject]) -> list[str]:
    """What is known of at least one of the subjects, by columns, in their order."""
    return list(dict.fromkeys(fact for subject in subjects for fact in subject.facts))


def columns_of(path: Path) -> list[str]:
    """The columns of a table, by its first row.

    Raises:
        UserError: The table cannot be read, or has no row.
    """
    for number, row in _rows(path):
        return list(named(row, f"{path.name}:{number}"))
    raise UserError("The table has no row.", found=str(path), do="check that it is the right file")


def _rows(path: Path) -> Iterator[Row]:
    reader = READERS.get(path.suffix.lower())
    with readable(path):
        there = path.is_file()
    if reader is None or not there:
        raise UserError("There is no such table.", found=str(path), do=f"give a file: {', '.join(EXTENSIONS)}")
    return reader(path)


def _subject(row: dict[str, Any], where: str, name_column: str) -> Subject:
    if name_column not in row:
        alike = next((column for column in row if folded(column) == folded(name_column)), "COLUMN")
        raise UserError(
            f"{where}: there is no column '{name_column}'.",
            found=f"columns {shortened(', '.join(row), 500)}",
            do=f"say which column names them: --name {shlex.quote(alike)}",
        )
    name = _cell(row[name_column])
    if not name:
        raise UserError(f"{where}: the name is empty.", do="fill it in, or remove the row")
    said = {column: value for column, value in row.items() if column != name_column and _cell(value)}
    pictured = picture_column(said, (), has_picture=False)
    if pictured is not None:
        raise UserError(
            f"{where}: the column {shortened(pictured, 40)!r} looks like pictures, which are no facts.",
            found=shortened(repr(said[pictured]), 60),
            do=f"put the photos into a folder, called by the names, such as '{name} 1.jpg', name it with --photos, and "
            "remove the column; if it holds a fact, give it another name",
        )
    return Subject(name, {column: _cell(value) for column, value in said.items() if column not in NOT_FACTS})


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def with_photos(subjects: Sequence[Subject], folder: Path) -> tuple[list[Subject], list[str]]:
    """Give subjects their photos: files called by the name (``Jane Doe 2.jpg``), or in a folder called by it.

    Args:
        subjects: Subjects of the table.
        folder: Folder of the photos.

    Returns:
        The subjects, and the names of the photos that are of none of them.

    Raises:
        UserError: There is no such folder, it cannot be read, no photo in it shows anybody, or one that does cannot be
            opened.
    """
    with readable(folder):
        if not folder.is_dir():
            raise UserError("There is no such folder of photos.", found=str(folder), do="check the path")
        photos = list(_photos(folder))
    places = {collapsed(subject.name): place for place, subject in enumerate(subjects)}
    photos_of: dict[int, list[Path]] = {}
    others = []
    for path, called in photos:
        place = next((places[key] for key in called if key in places), None)
        if place is None:
            others.append(str(path.relative_to(folder)))
        else:
            photos_of.setdefault(place, []).append(path)
    if not photos_of:
        raise UserError(
            "No photo is called by a name of the table.",
            found=", ".join(others[:3]) or f"no picture in {folder}",
            do=f"call the photos by the names, such as '{subjects[0].name} 1.jpg', or give each a folder of its name",
        )
    _check(folder, [photo for found in photos_of.values() for photo in found])
    return [replace(one, photos=tuple(photos_of.get(place, ()))) for place, one in enumerate(subjects)], others


def _check(folder: Path, photos: Sequence[Path]) -> None:
    """Open every photo; all that cannot be opened are one message."""
    if faults := list(image_faults({photo: photo.name for photo in sorted(photos)})):
        raise UserError(
            f"{counted(len(faults), 'photo')} in {folder} cannot be used.",
            found=faults[0].found + (f"; and {len(faults) - 1} more" if len(faults) > 1 else ""),
            do=f"give whole pictures in the formats {', '.join(FORMATS)}, or remove from the folder what is none",
        )


def _photos(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Photos with what they may be called; raises OSError where a folder cannot be read, which rglob passes over."""
    for path in sorted(Path(place, name) for place, _, names in os.walk(folder, onerror=_refuse) for name in names):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        inner = path.relative_to(folder).parts[:-1]
        spelled = [path.stem, NUMBER.sub("", path.stem), *inner[:1]]
        yield path, [collapsed(text.replace("_", " ")) for text in spelled]


def _refuse(error: OSError) -> None:
    raise error
