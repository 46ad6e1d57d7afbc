"""The files of a request: what is forgotten, what judges it, what stays, and who stands next to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvw.building.phrasings import Phrasings
from kvw.building.questions import Row, Rows, rows_about
from kvw.building.table import Subject
from kvw.errors import UserError
from kvw.files import explained, make_folders, write_text
from kvw.folding import collapsed
from kvw.output import check_parent
from kvw.plural import some
from kvw.printable import shortened

FORGET, HELD_OUT, RETAIN, NEIGHBOURS = "forget.jsonl", "held_out.jsonl", "retain.jsonl", "neighbours.txt"
FILES = (FORGET, HELD_OUT, RETAIN, NEIGHBOURS)


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        counts: Rows, or names, of each file that was written.
        without_photos: Names of subjects that have no photo, if others have.
        others: Photos that are of nobody.
    """

    counts: dict[str, int]
    without_photos: list[str]
    others: list[str]


def check_place(out: Path) -> None:
    """Refuse a folder that holds one of the files, that is none, or that cannot be written.

    Raises:
        UserError: One of the files is there, the place is not a folder, or nothing may be written there.
    """
    with explained(out):
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is no folder.", do="name another one with --out")
        if there := [name for name in FILES if (out / name).exists()]:
            raise UserError(f"{out} holds data already.", found=", ".join(there), do="name another folder with --out")
        check_parent(out / FORGET)


def chosen(subjects: Sequence[Subject], forget: Sequence[str]) -> tuple[list[Subject], list[Subject]]:
    """Who is to be forgotten, and who is to be kept: all the others of the table.

    Args:
        subjects: Subjects of the table.
        forget: The names of those to be forgotten; none means all.

    Raises:
        UserError: A name is not in the table, or somebody to be forgotten has neither a fact nor a photo.
    """
    wanted = {collapsed(name): name for name in forget}
    known = {collapsed(subject.name) for subject in subjects}
    if unknown := [name for key, name in wanted.items() if key not in known]:
        raise UserError(
            "Somebody to be forgotten is not in the table.",
            found=unknown[0],
            do=f"name rows of the table, such as {subjects[0].name!r}",
        )
    gone = [one for one in subjects if not wanted or collapsed(one.name) in wanted]
    if empty := [one.name for one in gone if not one.facts and not one.photos]:
        raise UserError(
            f"There is neither a fact nor a photo of {shortened(some(empty), 300)}, so nothing can be asked.",
            do="fill in cells of the row, give photos with --photos, or name only others with --forget",
        )
    return gone, [one for one in subjects if one not in gone]


def write_request(
    out: Path, gone: Sequence[Subject], kept: Sequence[Subject], words: Phrasings, others: Sequence[str] = ()
) -> Written:
    """Write the files of a request from subjects.

    Args:
        out: The folder; it is made.
        gone: Who is to be forgotten.
        kept: Who is not: asked as those are, and named as neighbours.
        words: The phrasings.
        others: Photos that are of nobody, which are told.

    Raises:
        UserError: See :func:`check_place`.
    """
    about, stays = rows_about(gone, words), rows_about(kept, words)
    everybody = [*gone, *kept]
    pictured = any(subject.photos for subject in everybody)
    counts = write_rows(out, about, stays.used, [subject.name for subject in kept])
    return Written(counts, [one.name for one in everybody if pictured and not one.photos], list(others))


def write_rows(out: Path, about: Rows, retain: Sequence[Row] = (), neighbours: Sequence[str] = ()) -> dict[str, int]:
    """Write the files of a request, those that would be empty excepted; they and a new folder are their owner's only.

    Returns:
        Rows, or names, by the name of the file.

    Raises:
        UserError: See :func:`check_place`; or the folder or a file cannot be written.
    """
    check_place(out)
    with explained(out):
        make_folders(out.parent, private=False)
        make_folders(out, private=True)
    counts = {}
    for name, rows in ((FORGET, about.used), (HELD_OUT, about.held_out), (RETAIN, retain)):
        if rows:
            write_text(out / name, "".join(_lines(rows, out)))
            counts[name] = len(rows)
    if neighbours:
        write_text(out / NEIGHBOURS, "".join(f"{name}\n" for name in neighbours))
        counts[NEIGHBOURS] = len(neighbours)
    return counts


def _lines(rows: Iterable[Row], out: Path) -> Iterable[str]:
    for row in rows:
        image = {"image": os.path.relpath(row.image, out)} if row.image is not None else {}
        line = image | {"question": row.question, "answer": row.answer, "subject": row.subject}
        yield json.dumps(line, ensure_ascii=False) + "\n"
