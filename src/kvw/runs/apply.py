"""``kvw apply``: an edit written into the weights of a checkpoint."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

from kvw._version import __version__
from kvw.edits.edit import Edit, refuse_nothing
from kvw.edits.weight_edit import WeightEdit, weight_edit
from kvw.errors import UserError
from kvw.files import write_text
from kvw.measuring.fingerprint import digest, remember_digest, remembered_digest, weights_digest
from kvw.measuring.source_state import SourceState
from kvw.models.companions import left_aside
from kvw.models.loading import Checkpoint, skeleton
from kvw.models.patching import Untouched, WrittenFile, save_checkpoint, shared_files
from kvw.models.quantised import refuse_stored_quantised
from kvw.models.reload_check import check_copy, check_reload
from kvw.models.saving import check_disk_space
from kvw.models.stored import StoredMatrix, locate
from kvw.models.value_matrix import MatrixKey
from kvw.models.weight_files import weight_files
from kvw.output import check_output_directory
from kvw.pages.card import model_card
from kvw.partial import PartialDirectory, finished_before, resumable_directory
from kvw.progress import Reporter
from kvw.records.run import LanguagePart, RunRecord
from kvw.runs.language import compare_written
from kvw.runs.weights import check_weights

CARD = "README.md"


@dataclass(frozen=True)
class Applied:
    """What ``kvw apply`` did."""

    files: list[WrittenFile]
    copied_bytes: int
    """What this run copied and read back; finished files of an interrupted run and links are not in it."""
    seconds: float
    """Wall-clock seconds of copying and reading back."""
    other_weights: str
    """SHA-256 of the source's weights if the edit was made on others; else empty."""
    language: LanguagePart | None = None
    """Whether the written model still writes ordinary language; None if it was not looked at."""


def apply(
    edit: Edit,
    checkpoint: Checkpoint,
    out: Path,
    reporter: Reporter,
    *,
    untouched: Untouched = "copy",
    record: RunRecord | None = None,
    other_weights: bool = False,
    force: bool = False,
    keep: Sequence[Path] = (),
    listen: bool = False,
) -> Applied:
    """Write a copy of the checkpoint with the edit in it. If it is killed, the same call goes on where it stopped.

    Args:
        edit: What to write.
        checkpoint: What to write it into.
        out: Folder to write; it appears when everything is in it and has been read back.
        reporter: Told of progress, of what was resumed, of other weights, and of damage that the run found.
        untouched: Whether weight files that hold no edited matrix are copied or linked.
        record: Record of the run that made the edit; its scores go into the model card, unless the weights are others.
        other_weights: Whether the edit may be written into weights other than those it was made on.
        force: Whether what ``out`` holds may be replaced, if kvw wrote it.
        keep: Further files that the caller has read, the edit's own above all; never replaced.
        listen: Whether source and copy are loaded, to see whether the copy still writes ordinary language. That happens
            before ``out`` appears, so its card is whole from the beginning.

    Raises:
        UserError: The edit does nothing, is for another model or was made on other weights, ``out`` cannot be written,
            or the copy is not what it should be; ``out`` is then as it was before.
    """
    refuse_stored_quantised(str(checkpoint), checkpoint.folder)
    source = SourceState(checkpoint.folder)
    files = weight_files(checkpoint.folder)
    inputs = [checkpoint.folder, *files, *keep]
    check_output_directory(out, force=force, keep=inputs)
    refuse_nothing(edit)
    folding = weight_edit(edit)
    stored = _locate(folding, checkpoint)
    check_copy(checkpoint)
    others = _other_weights(edit, checkpoint, reporter, allowed=other_weights)
    for warning in [*left_aside(checkpoint.folder), *_told_by(record)]:
        reporter.warn(warning)
    job = _job(edit, stored, files, untouched)
    finished = finished_before(out, job)
    _check_room(checkpoint.folder, out, stored, untouched, finished, reporter)
    known = {path.name: found for path in files if (found := remembered_digest(path)) is not None}
    source.check()  # what is known of it was read from the same files
    with resumable_directory(out, job, "model", force=force, keep=inputs, public=True) as partial:
        _tell(partial, out, reporter)
        start = time.perf_counter()
        written = _write(folding, checkpoint, stored, partial, untouched, known, reporter)
        seconds = time.perf_counter() - start
        language = _finish(edit, checkpoint, partial.folder, record, others, reporter, listen=listen)
        source.check(known, linked=[file.name for file in written if file.way == "hardlink"])
    for path, file in zip(files, written, strict=True):
        remember_digest(path, file.source_digest)
    copied = sum(file.size for file in written if file.way == "copy" and file.name not in finished)
    return Applied(written, copied, seconds, others, language)


def _finish(
    edit: Edit,
    checkpoint: Checkpoint,
    folder: Path,
    record: RunRecord | None,
    others: str,
    reporter: Reporter,
    *,
    listen: bool,
) -> LanguagePart | None:
    """Write the card of a copy, see whether the copy is a model, and if asked to, whether it still speaks."""
    write_card(edit, checkpoint, folder, record, other_weights=others)
    check_reload(checkpoint, folder)
    if not listen:
        return None
    language = _heard(checkpoint, folder, reporter, None if others else record)
    write_card(edit, checkpoint, folder, record, language=language, other_weights=others)
    return language


def record_beside(edit_file: Path, edit: Edit, reporter: Reporter) -> RunRecord | None:
    """The ``run.json`` beside an edit file, if that is the record of the run that made the edit."""
    record_file = edit_file.parent / "run.json"
    if not record_file.is_file():
        return None
    try:
        record = RunRecord.model_validate_json(record_file.read_bytes())
    except ValidationError:
        reporter.note(f"{record_file} is no run record of this version: the model card will have no scores.")
        return None
    made = edit.metadata
    same = (record.edit_digest, record.model.fingerprint, record.forget.digest, digest(record.settings)) == (
        edit.digest(),
        made.model_fingerprint,
        made.forget_digest,
        digest(made.settings),
    )
    return record if same else None


def _heard(checkpoint: Checkpoint, folder: Path, reporter: Reporter, record: RunRecord | None) -> LanguagePart:
    """Listen to a model that was written and to its source.

    Returns:
        What was found here, and by the run that made the edit, if its record is given.
    """
    language = compare_written(checkpoint, folder, reporter)
    for damage in language.damage:
        reporter.warn(damage)
    both = list(dict.fromkeys([*language.damage, *_damage(record)]))
    return language.model_copy(update={"damage": both})


def write_card(
    edit: Edit,
    source: Checkpoint,
    folder: Path,
    record: RunRecord | None = None,
    *,
    language: LanguagePart | None = None,
    other_weights: str = "",
) -> None:
    """Write the README of an edited model: the source's and a section on the edit.

    Args:
        edit: What was written.
        source: What it was written into.
        folder: Folder of the edited model.
        record: Record of the run that made the edit.
        language: Whether it is still a language model, if that was looked at again.
        other_weights: SHA-256 of the source's weights if the edit was made on others; then nothing that the run
            measured is true of this model.
    """
    readme, metadata = source.folder / CARD, edit.metadata
    text = readme.read_bytes().decode("utf-8", errors="replace") if readme.is_file() else None
    # A local folder's name says less than the model that the edit was made on, if that is what the folder holds.
    base_model = str(source) if source.revision or other_weights or not metadata.base_model else metadata.base_model
    metadata = metadata.model_copy(update={"base_model": base_model})
    asked = record.asked if record else None
    if other_weights:
        record = None
    card = model_card(
        metadata,
        edit.describe(),
        asked=asked,
        scores=record.splits if record else None,
        selection=record.selection if record else None,
        language=language or (record.language if record else None),
        source=text,
        other_weights=other_weights,
    )
    write_text(folder / CARD, card, public=True)
    if readme.is_file():
        shutil.copymode(readme, folder / CARD)


def _damage(record: RunRecord | None) -> list[str]:
    return [] if record is None else record.language.damage


def _told_by(record: RunRecord | None) -> list[str]:
    return [f"The run that made the edit found: {damage}" for damage in _damage(record)]


def _other_weights(edit: Edit, checkpoint: Checkpoint, reporter: Reporter, *, allowed: bool) -> str:
    """The digest of the checkpoint's weights if the edit was made on others; empty if it was made on these."""
    if not edit.metadata.model_fingerprint:
        check_weights(edit, "unknown", reporter)
        return ""
    with reporter.stage("reading the weights"):
        fingerprint = weights_digest(checkpoint.folder)
    return "" if check_weights(edit, fingerprint, reporter, other_weights=allowed) else fingerprint


def _locate(edit: WeightEdit, checkpoint: Checkpoint) -> dict[MatrixKey | str, StoredMatrix]:
    model = skeleton(checkpoint)
    try:
        return locate(model, edit.parts(model), checkpoint.folder)
    except SafetensorError as error:
        raise UserError(
            f"The weights of {checkpoint} could not be read.", found=str(error), do="download or write the model again"
        ) from error


def _job(
    edit: Edit, stored: Mapping[MatrixKey | str, StoredMatrix], files: Sequence[Path], untouched: Untouched
) -> dict[str, str]:
    """Everything that decides what the weight files will hold, part by part."""
    states = []
    for path in files:
        state = path.stat()
        # A hard link changes the change time of the source's file, so it can only count where none is made.
        changed = 0 if untouched == "hardlink" else state.st_ctime_ns
        states.append((path.name, str(path.resolve()), state.st_ino, state.st_size, state.st_mtime_ns, changed))
    places = sorted((str(key), entry.file, entry.name) for key, entry in stored.items())
    return {
        "edit": digest(edit.digest(), edit.metadata.model_dump(mode="json")),
        "checkpoint": digest(states, places),
        "untouched": untouched,
        "kvw version": __version__,
    }


def _check_room(
    source: Path,
    out: Path,
    stored: Mapping[MatrixKey | str, StoredMatrix],
    untouched: Untouched,
    finished: Collection[str],
    reporter: Reporter,
) -> None:
    """Find out whether the disk has room for what is neither linked nor finished."""
    shared = shared_files(source, out, stored, untouched)
    if untouched != "copy" and not shared:
        reporter.note(f"Every weight file holds an edited value matrix, so there is nothing to {untouched}.")
    check_disk_space(source, out, "share files with --untouched hardlink", without=[*shared, *finished])


def _write(
    edit: WeightEdit,
    checkpoint: Checkpoint,
    stored: Mapping[MatrixKey | str, StoredMatrix],
    partial: PartialDirectory,
    untouched: Untouched,
    known: Mapping[str, str],
    reporter: Reporter,
) -> list[WrittenFile]:
    try:
        with reporter.stage("writing and reading back (MB)") as progress:
            return save_checkpoint(
                checkpoint.folder,
                partial.folder,
                stored,
                edit.changed,
                untouched=untouched,
                partial=partial,
                known=known,
                progress=progress,
            )
    except KeyboardInterrupt:
        reporter.note(f"The same command goes on with what is finished, in {partial.folder.parent}.")
        raise


def _tell(partial: PartialDirectory, out: Path, reporter: Reporter) -> None:
    if partial.differing:
        reporter.note(
            f"An interrupted run into {out} was another one (different: {', '.join(partial.differing)}): starting over."
        )
    elif finished := partial.finished():
        reporter.note(f"Went on with an interrupted run: {len(finished)} weight files were finished already.")
