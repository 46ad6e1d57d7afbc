"""``kvw apply`` and ``kvw edit export`` on GGUF files: an edit in the weights that llama.cpp and Ollama run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvw.edits.adapters import lora_factors
from kvw.edits.edit import Edit, refuse_nothing
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import LowRankEdit
from kvw.edits.requantised import requantised
from kvw.edits.surviving import surviving_share
from kvw.edits.weight_edit import WeightEdit
from kvw.errors import UserError
from kvw.files import new_file
from kvw.measuring.fingerprint import weights_digest
from kvw.models.checkpoint import Checkpoint, find_checkpoint
from kvw.models.gguf_file import ADAPTER, GgufFile, GgufMatrix, write_gguf_lora
from kvw.models.loading import skeleton
from kvw.models.stored import locate
from kvw.models.value_matrix import MatrixKey
from kvw.output import check_output_file
from kvw.progress import Reporter
from kvw.runs.weights import check_weights

OTHER_MODEL = 0.3
"""Relative distance from which a matrix counts as that of another model; four bits are .1 away, strangers 1.4."""
HELD = 0.5
"""Share of an edit from which weights count as having it already."""
LOST = 0.8
"""Share of an edit below which the user is warned that the rounding took the rest."""
PIECE = 2**26
"""Bytes that are compared at a time."""


@dataclass(frozen=True)
class WrittenTensor:
    """One tensor that was changed."""

    name: str
    type: str
    share: float
    """How much of the edit is left of it, see :class:`kvw.edits.requantised.Requantised`."""


@dataclass(frozen=True)
class AppliedGguf:
    """What ``kvw apply`` did to a GGUF file."""

    written: list[WrittenTensor]
    tensors: int
    """In the whole file."""
    architecture: str


@dataclass(frozen=True)
class AdapterSize:
    """How large an adapter is."""

    rank: int
    """Of the matrix with most directions."""
    bytes: int


def apply_gguf(
    edit: Edit, model: Path, out: Path, reporter: Reporter, *, other_weights: bool = False, keep: tuple[Path, ...] = ()
) -> AppliedGguf:
    """Write a copy of a GGUF file with an edit in it.

    The edited matrices are read, changed and stored in the type that they had. All other bytes are the source's. The
    copy is read back and compared with the source before it appears.

    Args:
        edit: Gates or directions.
        model: The file; it is not changed.
        out: File to write; there must be none.
        reporter: Told of progress, of what could not be checked, and of what the rounding took.
        other_weights: Whether the file may hold other weights than those that the edit was made on.
        keep: Further files that the caller has read.

    Raises:
        UserError: The edit does nothing, is of another kind or for another model; a matrix is of a type that cannot be
            written; or the copy is not what it should be. There is no ``out`` then.
    """
    check_output_file(out, force=False, keep=[model, *keep])
    file, folding, matrices = open_for(edit, model, reporter, other_weights=other_weights)
    for matrix in matrices.values():
        matrix.check_writable()
    with new_file(out, public=True) as copy:
        shutil.copyfile(model, copy)
        written, ranges = _write(folding, matrices, copy, reporter)
        _check_copy(file, copy, ranges)
    for tensor in written:
        if tensor.share < LOST:
            reporter.warn(
                f"Rounding to {tensor.type} leaves {tensor.share:.0%} of the edit in {tensor.name}. To keep all of it, "
                f"{ADAPTER}."
            )
    return AppliedGguf(written, len(file.tensors), file.architecture)


def open_for(
    edit: Edit, model: Path, reporter: Reporter, *, other_weights: bool
) -> tuple[GgufFile, GateEdit | LowRankEdit, dict[MatrixKey, GgufMatrix]]:
    """Open the GGUF file that an edit is for.

    Returns:
        The file, the edit, and the value matrices that it changes.

    Raises:
        UserError: The edit does nothing, has no form there, or is for another model; or the file is damaged.
    """
    refuse_nothing(edit)
    if not isinstance(edit, GateEdit | LowRankEdit):
        raise UserError(
            f"Edits of kind '{edit.kind}' cannot be written into a GGUF file.",
            do="write it into the checkpoint (kvw apply), and convert that with llama.cpp's convert_hf_to_gguf.py",
        )
    if edit.metadata.undoes:
        raise UserError("The inverse of an edit does not bring rounded weights back.", do="use the original file")
    file = GgufFile(model)
    matrices = file.value_matrices(edit.widths)
    _check_source(edit, matrices, model, reporter, other_weights=other_weights)
    return file, edit, {key: matrix for key, matrix in matrices.items() if _acts(edit, key)}


def _acts(edit: GateEdit | LowRankEdit, key: MatrixKey) -> bool:
    if isinstance(edit, LowRankEdit):
        return edit.directions[key].acts(edit.strength)
    return bool((edit.log_gates[key] != 0).any())


def _check_source(
    edit: GateEdit | LowRankEdit,
    matrices: Mapping[MatrixKey, GgufMatrix],
    model: Path,
    reporter: Reporter,
    *,
    other_weights: bool,
) -> None:
    """Compare the file with the checkpoint that the edit was made on; a file of few bits has no digest in common."""
    if other_weights:
        check_weights(edit, "another file", reporter, other_weights=True)
        return
    base = _made_on(edit)
    if base is None:
        reporter.warn(
            f"The checkpoint that the edit was made on ({edit.metadata.base_model or 'without a name'}) is not on this "
            f"machine: only shapes say that {model.name} is that model."
        )
        return
    folding: WeightEdit = edit
    live = edit.value_matrices(skeleton(base))
    stored = locate(skeleton(base), list(live.values()), base.folder)
    for key, matrix in matrices.items():
        original = stored[key].read(base.folder).float()
        upright = original.T.contiguous() if live[key].vectors_first else original
        here = matrix.read()
        distance = float((here - upright).norm() / upright.norm()) if here.shape == upright.shape else float("inf")
        if not distance < OTHER_MODEL:
            raise UserError(
                f"{model.name} is not {base}, on which the edit was made.",
                found=f"{matrix.name} differs by {distance:.0%} of its size",
                do="give the GGUF file of that model; --other-weights allows another one",
            )
        change = folding.changed(matrix, upright).double() - upright.double()
        if change.any() and surviving_share(upright, here, change) > HELD:
            raise UserError(
                f"{model.name} has the edit in it already.",
                found=f"in {matrix.name}",
                do="give the file without it; --other-weights writes it once more",
            )


def _made_on(edit: Edit) -> Checkpoint | None:
    """The checkpoint that an edit was made on, if it is on this machine and still holds these weights."""
    made = edit.metadata
    try:
        base = find_checkpoint(made.base_model, download=False) if made.base_model else None
        return base if base is not None and weights_digest(base.folder) == made.model_fingerprint else None
    except UserError:
        return None


def _write(
    edit: GateEdit | LowRankEdit, matrices: Mapping[MatrixKey, GgufMatrix], copy: Path, reporter: Reporter
) -> tuple[list[WrittenTensor], dict[tuple[int, int], str]]:
    """Put the edited matrices into a copy.

    Returns:
        The tensors, and the SHA-256 of what was put between two places of the file.
    """
    written, ranges = [], {}
    with reporter.stage("writing matrices") as progress, copy.open("r+b") as file:
        for matrix in matrices.values():
            changed = requantised(edit, matrix, matrix.read(), matrix.rounded)
            content = matrix.pack(changed.weight)
            file.seek(matrix.offset)
            file.write(content)
            ranges[matrix.offset, matrix.offset + len(content)] = hashlib.sha256(content).hexdigest()
            written.append(WrittenTensor(matrix.name, matrix.type, changed.share))
            progress(len(written), len(matrices))
    return written, ranges


def _check_copy(source: GgufFile, copy: Path, ranges: Mapping[tuple[int, int], str]) -> None:
    """Read a copy back.

    Raises:
        UserError: It has another layout, differs outside of the ranges, or does not hold there what was written.
    """
    before, after = (np.memmap(path, np.uint8, "r") for path in (source.path, copy))
    same = len(before) == len(after) and GgufFile(copy).layout() == source.layout()
    place = 0
    for (begin, end), digest in sorted(ranges.items()):
        same = same and _equal(before[place:begin], after[place:begin])
        same = same and hashlib.sha256(after[begin:end].tobytes()).hexdigest() == digest
        place = end
    if not (same and _equal(before[place:], after[place:])):
        raise UserError(
            f"The copy of {source.path.name} is not what was written.",
            found="bytes that differ when read back",
            do="see whether the disk is damaged, and run the command again",
        )


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return all(
        np.array_equal(one[begin : begin + PIECE], other[begin : begin + PIECE])
        for begin in range(0, max(len(one), 1), PIECE)
    )


def export_gguf_lora(
    edit: Edit, model: Path, out: Path, reporter: Reporter, *, other_weights: bool = False, keep: tuple[Path, ...] = ()
) -> AdapterSize:
    """Write an edit as an adapter that llama.cpp loads beside a GGUF file (``--lora``), of whatever type that is.

    Its outputs are made of the weights in that file, so a direction is weakened there by just what its gate says.

    Args:
        edit: Directions; or gates, which need a rank of the number of scaled vectors.
        model: The GGUF file.
        out: File to write; there must be none.
        reporter: Told of what could not be checked.
        other_weights: Whether the file may hold other weights than those that the edit was made on.
        keep: Further files that the caller has read.

    Raises:
        UserError: The edit does nothing, scales experts, is of another kind or for another model.
    """
    check_output_file(out, force=False, keep=[model, *keep])
    file, folding, matrices = open_for(edit, model, reporter, other_weights=other_weights)
    experts = [str(key) for key in matrices if key.expert is not None]
    if experts:
        raise UserError(
            "The edit scales experts, for which kvw makes no adapter.",
            found=", ".join(experts[:3]),
            do=f"write it into the file: kvw apply EDIT {model.name} --out EDITED.gguf",
        )
    factors = {matrix.name: lora_factors(folding, key, matrix.read().double()) for key, matrix in matrices.items()}
    with new_file(out) as temporary:
        write_gguf_lora(temporary, file.architecture, factors)
    return AdapterSize(max(len(a) for a, _ in factors.values()), out.stat().st_size)
