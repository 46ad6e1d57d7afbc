"""What is kept of a request whose data are deleted, and who was in it; importing this loads nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvw.data import Example
from kvw.data.reading import AS_IT_IS, Reading
from kvw.errors import UserError
from kvw.measuring.fingerprint import examples_digest, subject_digest
from kvw.measuring.salt import salted
from kvw.methods.registry import DEFAULT, get_method
from kvw.runs.first_checks import file_metadata, is_file
from kvw.runs.union import joined, read_forget_files
from kvw.sealed import is_sealed, metadata_in, opened, read_key

if TYPE_CHECKING:
    from kvw.edits.low_rank import LowRankEdit
    from kvw.evaluation.loaded import Loaded
    from kvw.methods.earlier import Earlier
    from kvw.models.checkpoint import Checkpoint
    from kvw.models.quantised import Quantise
    from kvw.progress import Reporter

CHANGING = ("versions", "data")
"""Parts of a fingerprint that may differ between an earlier request and a later run: the data are others, and a request
outlives versions of kvw."""


@dataclass(frozen=True)
class Kept:
    """What was kept of a request.

    Args:
        subjects: How many subjects.
        facts: How many facts.
        bytes: Size of the file.
    """

    subjects: int
    facts: int
    bytes: int


def keep(
    checkpoint: Checkpoint,
    files: Sequence[Path],
    out: Path,
    reporter: Reporter,
    *,
    edit: Path | None = None,
    key: Path | None = None,
    reading: Reading = AS_IT_IS,
    device: str | None = None,
    quantise: Quantise | None = None,
) -> Kept:
    """Measure a forget set and keep what a later request needs of it, so that the data can be deleted.

    Args:
        checkpoint: The original model.
        files: Files of the forget set.
        out: The file to write.
        reporter: Told of stages.
        edit: The edit by which a run has forgotten them, so that later requests can be judged with it in force.
        key: A file with the key that encrypts what is kept, see :func:`kvw.sealed.read_key`; None: it is not.
        reading: What the columns are called, and which answers of conversations count.
        device: Where the model runs; None for the accelerator if there is one.
        quantise: Quantise it while it is loaded.

    Raises:
        UserError: A file, the edit, the key or the model cannot be used, the examples name no subjects, or ``out``
            cannot be written.
    """
    forget, secret = read_named(files, reading), key_in(key)
    made = edit_of(edit) if edit else None
    from kvw.evaluation.loaded import Loaded
    from kvw.selection.held_out import split_forget

    with reporter.stage("loading the model"):
        loaded = Loaded.load(checkpoint, device, quantise=quantise)
    forget = loaded.in_windows(forget)
    if made is not None:
        _check_made(made, loaded, forget, str(edit))
    solved, _ = split_forget(forget)  # as much as a run solves with: the rest judges its edit
    with reporter.stage("measuring") as progress:
        kept = get_method(DEFAULT).keep(loaded, solved, progress)
    loaded.check_source()
    kept = replace(kept, edit=made)
    kept.save(out, secret)
    return Kept(len(set(kept.subjects)), len(set(kept.facts)), out.stat().st_size)


def edit_of(path: Path) -> LowRankEdit:
    """The edit of a request that is to be kept.

    Raises:
        UserError: It is no edit that can be in force beside those of later requests.
    """
    from kvw.edits.edit import load_edit
    from kvw.edits.low_rank import LowRankEdit

    made = load_edit(path)
    if not isinstance(made, LowRankEdit) or made.undoes:
        raise UserError(
            "Only an edit of directions can be in force beside later requests.",
            found=f"{path}, kind '{made.kind}'",
            do=f"give the edit.safetensors of kvw erase with method {DEFAULT}, or leave --edit out",
        )
    return made


def _check_made(made: LowRankEdit, loaded: Loaded, forget: Sequence[Example], name: str) -> None:
    """Refuse an edit of another model, or that was not made to forget these examples."""
    made.check_model(loaded.model)
    if made.metadata.model_fingerprint not in ("", loaded.fingerprint):
        raise UserError(
            f"The edit {name} was made on other weights.",
            found=f"made on {made.metadata.model_fingerprint[:12]}, the model has {loaded.fingerprint[:12]}",
            do="give the original model of its run",
        )
    if made.metadata.forget_digest != salted(examples_digest(forget)):
        raise UserError(
            f"The edit {name} was not made to forget these data, or on another machine.",
            found=f"{len(forget)} examples here, {made.metadata.forget_count} in the edit",
            do="give all forget files of its run, and run this where the run was: only there its digest can be checked",
        )


def key_in(path: Path | None) -> bytes | None:
    """The key of a file; None without one.

    Raises:
        UserError: It holds none.
    """
    return None if path is None else read_key(path)


def read_named(files: Sequence[Path], reading: Reading) -> list[Example]:
    """The examples of a forget set, which must name their subjects.

    Raises:
        UserError: A file cannot be used, or an example names no subject.
    """
    forget, _ = joined(read_forget_files(files, reading))
    if nameless := [example.identifier for example in forget if example.subject is None]:
        raise UserError(
            "Of a request to be kept every example names its subject: nobody can be told from others later without.",
            found=f"{len(nameless)} of {len(forget)} without, the first {nameless[0]}",
            do="add a column 'subject'; if you have one of another name, --columns subject=NAME",
        )
    return forget


@dataclass(frozen=True)
class WhoAsked:
    """Who was in earlier requests; their names are not known, but can be recognised.

    Args:
        digests: Salt and digests of subjects of each request.
        without_edit: The files that do not hold the edit of their request.
    """

    digests: tuple[tuple[str, frozenset[str]], ...] = ()
    without_edit: tuple[Path, ...] = ()

    def __contains__(self, subject: str | None) -> bool:
        """Whether a subject, as examples compare it, is one of them."""
        return subject is not None and any(subject_digest(subject, salt) in found for salt, found in self.digests)


NOBODY = WhoAsked()


def who_asked(paths: Sequence[Path], key: Path | None = None) -> WhoAsked:
    """Who was in earlier requests, by what the files say of themselves.

    Args:
        paths: The files.
        key: A file with the key of those that are encrypted.

    Raises:
        UserError: One of them is no file of a kept request, or is encrypted with another key; or none is encrypted and
            there is a key.
    """
    found, secret, sealed = [], key_in(key), False
    without_edit: list[Path] = []
    for path in paths:
        if not is_file(path):
            raise UserError(
                f"There is no file {path} of an earlier request.",
                do="make one, while there are data, with: kvw data keep FILE --model MODEL --out FILE",
            )
        metadata = file_metadata(path)
        if is_sealed(metadata):
            sealed, metadata = True, metadata_in(opened(path.read_bytes(), secret, path))
        try:
            found.append((metadata["salt"], frozenset(json.loads(metadata["subjects"]))))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is no file of a kept request.",
                found=f"format {metadata.get('format')!r}",
                do="give what kvw data keep has written",
            ) from error
        if "edit" not in metadata:
            without_edit.append(path)
    if secret is not None and not sealed:
        raise UserError("No earlier request is encrypted.", found=f"--earlier-key {key}", do="leave --earlier-key out")
    return WhoAsked(tuple(found), tuple(without_edit))


def load_earlier(paths: Sequence[Path], loaded: Loaded, key: Path | None = None) -> tuple[Earlier, ...]:
    """What was kept of earlier requests, if it is of this model.

    Args:
        paths: The files.
        loaded: The model.
        key: A file with the key of those that are encrypted.

    Raises:
        UserError: A file is damaged, is given twice, or was measured under other conditions.
    """
    from kvw.measuring.statistics import differing_parts
    from kvw.methods.earlier import Earlier

    found, secret = list[Earlier](), key_in(key)
    for path in paths:
        one = Earlier.load(path, secret)
        if any(one.salt == other.salt for other in found):
            raise UserError("An earlier request is given twice.", found=str(path), do="leave one of them out")
        differing = [part for part in differing_parts(loaded.conditions([]), one.fingerprint) if part not in CHANGING]
        if differing:
            raise UserError(
                f"The earlier request {path} was measured under other conditions.",
                found=f"different: {', '.join(differing)}",
                do="use the model that it was kept for, or give the data of all requests",
            )
        found.append(one)
    return tuple(found)
