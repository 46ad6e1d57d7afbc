"""Whether an edit on the original gives a model: every byte of it is worked out again and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvw.edits.edit import Edit
from kvw.edits.weight_edit import WeightEdit, weight_edit
from kvw.evidence.differences import differences
from kvw.files import file_digest
from kvw.folders import folder_digests
from kvw.mark import MARK
from kvw.models.checkpoint import Checkpoint
from kvw.models.companions import companions
from kvw.models.comparing import Range, first_difference, pieces
from kvw.models.loading import skeleton
from kvw.models.patching import changes
from kvw.models.saving import equal_up_to_rounding
from kvw.models.stored import StoredMatrix, locate
from kvw.models.weight_files import find_weights

CARD = "README.md"
NOT_WORKED_OUT = (CARD, MARK)
"""Files of a written model that no edit determines; only digests say whether they are as they were."""


@dataclass
class Recomputed:
    """What came out.

    Attributes:
        wrong: What the model has otherwise than it should, in words.
        rounded: Value matrices that differ by nothing but rounding.
        matrices: How many value matrices the edit changes.
    """

    wrong: list[str] = field(default_factory=list)
    rounded: list[str] = field(default_factory=list)
    matrices: int = 0


def recompute(edit: Edit, original: Checkpoint, folder: Path) -> Recomputed:
    """Work out what an edit makes of the original, and compare a written model with it, without loading either.

    Args:
        edit: The edit.
        original: What it was made on.
        folder: The model; nothing is written there.

    Raises:
        UserError: The edit has no weights, is for another model, or the original's files are not what they should be.
    """
    found, model, folding = Recomputed(), skeleton(original), weight_edit(edit)
    stored = locate(model, folding.parts(model), original.folder)
    found.matrices = len(stored)
    weights = find_weights(original.folder)
    found.wrong += _wrong_others(original.folder, folder)
    for path in weights.files:
        if (folder / path.name).is_file():
            entries = [entry for entry in stored.values() if entry.file == path.name]
            _compare(folding, path, folder / path.name, entries, found)
    return found


def _compare(edit: WeightEdit, path: Path, copy: Path, entries: Sequence[StoredMatrix], found: Recomputed) -> None:
    """Compare one weight file: its value matrices with what the edit makes of them, all else with the source."""
    if path.stat().st_size != copy.stat().st_size:
        found.wrong.append(f"{copy.name} has another size")
        return
    expected: dict[Range, str] = {}
    for place, matrices, content in changes(path, entries, edit.changed):
        expected[place], there = hashlib.sha256(content).hexdigest(), _digest(copy, place)
        if there != expected[place] and _only_rounded(edit, path.parent, copy.parent, matrices):
            found.rounded += [entry.name for entry in matrices]
            expected[place] = there
    wrong = first_difference(path, copy, expected)
    if wrong is not None:
        found.wrong.append(f"{copy.name} is another between its bytes {wrong[0]} and {wrong[1]}")


def _only_rounded(edit: WeightEdit, original: Path, folder: Path, matrices: Sequence[StoredMatrix]) -> bool:
    try:
        return all(
            equal_up_to_rounding(entry.read(folder), edit.changed(entry.matrix, entry.read(original).contiguous()))
            for entry in matrices
        )
    except Exception:  # noqa: BLE001 (the header of the copy may be anything)
        return False


def _digest(path: Path, place: Range) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for piece in pieces(file, *place):
            digest.update(piece)
    return digest.hexdigest()


def _wrong_others(original: Path, folder: Path) -> list[str]:
    """What differs in the files beside the weights, and which files are missing or more."""
    weights = find_weights(original)
    expected = {path.relative_to(original).as_posix(): file_digest(path) for path in companions(original)}
    if weights.index is not None:
        corrected = weights.corrected_index()
        content = weights.index.read_bytes() if corrected is None else (json.dumps(corrected, indent=2) + "\n").encode()
        expected[weights.index.name] = hashlib.sha256(content).hexdigest()
    there = folder_digests(folder, without=NOT_WORKED_OUT)
    expected.pop(CARD, None)
    for path in weights.files:  # their bytes are looked at on their own
        expected[path.name] = there.get(path.name, "")
    return differences(expected, there)
