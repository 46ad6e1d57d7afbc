"""``kvw edit``: edit files made from edit files, and adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits import adapter_import, adapters
from kvw.edits.edit import Edit, EditMetadata, load_edit
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import LowRankEdit
from kvw.edits.served_adapters import Engine
from kvw.edits.summary import LayerSummary
from kvw.measuring.fingerprint import weights_digest
from kvw.models.loading import Checkpoint, skeleton
from kvw.models.stored import locate
from kvw.models.value_matrix import ValueMatrix
from kvw.output import check_output_directory
from kvw.progress import Reporter
from kvw.runs.first_checks import check_edit_output
from kvw.runs.weights import check_weights
from kvw.strict import Strict


class EditSummary(Strict):
    """An edit in numbers, and where it comes from."""

    kind: str
    metadata: EditMetadata
    layers: list[LayerSummary]
    rank: int | None = None
    """The most directions in one value matrix, or of gates the most scaled vectors: the rank as a LoRA. None for kinds
    that have no such form."""
    bytes: int | None = None
    """Size of its file; None if it was not read from one."""


def summarise(edit: Edit, file: Path | None = None) -> EditSummary:
    """Kind, origin, size, and how much is weakened in each layer."""
    ranks = [adapters.lora_rank(edit, key) for key in edit.widths] if isinstance(edit, GateEdit | LowRankEdit) else []
    return EditSummary(
        kind=edit.kind,
        metadata=edit.metadata,
        layers=edit.describe(),
        rank=max(ranks, default=None),
        bytes=None if file is None else file.stat().st_size,
    )


def derive(change: Callable[..., Edit], files: Sequence[Path], out: Path, *, force: bool = False) -> Edit:
    """Make an edit from those in files and write it.

    Args:
        change: Takes the edits, in the order of the files.
        files: Edit files; read only.
        out: Edit file to write.
        force: Replace ``out``.

    Raises:
        UserError: A file is no edit, ``change`` refuses, or ``out`` cannot be written; it is then as it was.
    """
    check_edit_output(out, files, force=force)
    edit = change(*(load_edit(file) for file in files))
    edit.save(out)
    return edit


def export(
    edit_file: Path,
    checkpoint: Checkpoint,
    form: Literal["ia3", "lora"],
    out: Path,
    reporter: Reporter,
    *,
    engine: Engine | None = None,
    other_weights: bool = False,
    force: bool = False,
) -> None:
    """Write an edit as a PEFT adapter, without loading the model; for an engine that serves adapters if one is named.

    Raises:
        UserError: See :func:`kvw.edits.export_ia3` and :func:`kvw.edits.export_lora`.
    """
    check_output_directory(out, force=force, keep=[checkpoint.folder, edit_file])
    edit, model = load_edit(edit_file), skeleton(checkpoint)
    if form == "ia3":
        adapters.export_ia3(edit, model, out, base_model_name=checkpoint.name, force=force)
        return
    check_weights(edit, weights_digest(checkpoint.folder), reporter, other_weights=other_weights)
    weights = _stored_weights(model, checkpoint.folder)
    adapters.export_lora(edit, model, out, base_model_name=checkpoint.name, weights=weights, engine=engine, force=force)


def import_adapter(directory: Path, checkpoint: Checkpoint, out: Path, *, force: bool = False) -> Edit:
    """Read a PEFT adapter as an edit and write its file, without loading the model.

    Raises:
        UserError: See :func:`kvw.edits.import_adapter`; or ``out`` cannot be written.
    """
    check_edit_output(out, [directory / adapters.WEIGHTS], force=force)
    model = skeleton(checkpoint)
    edit = adapter_import.import_adapter(directory, model, weights=_stored_weights(model, checkpoint.folder))
    if not edit.metadata.base_model:
        edit.metadata = edit.metadata.model_copy(update={"base_model": str(checkpoint)})
    edit.save(out)
    return edit


def _stored_weights(model: PreTrainedModel, folder: Path) -> adapters.Weights:
    """Value matrices straight from a checkpoint's files."""

    def read(matrix: ValueMatrix) -> Tensor:
        return locate(model, [matrix], folder)[matrix.key].read(folder)

    return read
